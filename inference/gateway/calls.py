"""A call on its way through the gateway."""

from datetime import datetime
from typing import Any, Final

import msgspec

from inference.gateway.admission import Call
from inference.gateway.catalogue import Served
from inference.payloads import Prompt

CHAT: Final = "inference.chat"
JOB: Final = "inference.job"
LIST_MODELS: Final = "inference.models"
UNKNOWN_ROUTE: Final = "inference.unknown_route"


class Origin(msgspec.Struct, frozen=True):
    """Where a call came from, and by which ids it is known."""

    request_id: str
    client_request_id: str | None
    address: str | None


class Generation(msgspec.Struct, frozen=True):
    """What an admitted call will run: the job's columns and its prompt."""

    served: Served
    prompt: Prompt
    max_tokens: int
    stream: bool
    parameters: dict[str, Any]


class Pending(msgspec.Struct, frozen=True):
    """One call in admission's batch."""

    action: str
    origin: Origin
    call: Call
    arrived_at: datetime
    generation: Generation | None = None
