"""What makes a submission the same as one that was made before under its idempotency key."""

from typing import TYPE_CHECKING, Any

import msgspec

from inference.gateway.wire.kept import CHAT_ENDPOINT
from portal.core.errors import Conflict

if TYPE_CHECKING:
    from inference.jobs.submission import JobRequest


def fingerprint_text(request: "JobRequest") -> bytes:
    """What makes two submissions the same: the body's meaning, and what was asked around it."""
    try:
        body: Any = msgspec.json.decode(request.body)
    except (msgspec.MsgspecError, RecursionError):
        body = request.body.decode(errors="replace")
    asked = [
        "idempotent job",
        body,
        request.action,
        request.priority.value,
        request.wait_seconds,
        request.result_seconds,
        dict(request.metadata),
        request.callback_url,
    ]
    if request.endpoint != CHAT_ENDPOINT:
        asked.append(request.endpoint)
    return msgspec.json.encode(asked, order="sorted")


def other_body() -> Conflict:
    """The refusal of a name that was given to another submission."""
    return Conflict(
        "This Idempotency-Key was used with another body: send the same body to get the job that "
        "was made, or another key for another job.",
        code="idempotency_key_reused",
        status=422,
        param="Idempotency-Key",
    )
