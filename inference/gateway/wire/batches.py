"""Batches on the wire: what makes one, and OpenAI's batch object."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from inference.gateway.wire.checks import DEFAULT_LIMITS
from inference.gateway.wire.diagnose import refusal_of, shown
from inference.gateway.wire.kept import ENDPOINTS
from inference.gateway.wire.objects import (
    FILE,
    batch_name,
    expiry_seconds,
    file_name,
    parse_name,
)
from inference.models.batches import BatchState
from portal.core.errors import Conflict, Invalid, TooMany
from portal.core.redaction import mask

WINDOW: Final = "24h"
WINDOW_SECONDS: Final = 24 * 3600

_MOST_LABELS: Final = 16
_LABEL_CHARS: Final = 64
_TEXT_CHARS: Final = 512


class _Expiry(msgspec.Struct):
    anchor: str
    seconds: int


class _Incoming(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: _Expiry | None = None


_decoder: Final = msgspec.json.Decoder(_Incoming)


class NewBatch(msgspec.Struct, frozen=True):
    """What a caller asks for; ``output_seconds`` is how long its results are kept."""

    input_file_id: UUID
    endpoint: str
    metadata: dict[str, str] | None
    output_seconds: int | None


def parse_batch(body: bytes) -> NewBatch:
    """The batch that ``body`` asks for.

    Raises:
        Invalid: a parameter is missing or wrong, or names what is not supported.
        NotFound: the input file's id can't be one.
    """
    try:
        incoming = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise refusal_of(body, fault, DEFAULT_LIMITS.depth) from None
    if incoming.endpoint not in ENDPOINTS:
        raise _wrong(
            "endpoint",
            f"batches of '{shown(incoming.endpoint)}' are not supported; "
            f"use {', '.join(ENDPOINTS)}",
        )
    if incoming.completion_window != WINDOW:
        raise _wrong("completion_window", f"use '{WINDOW}'")
    return NewBatch(
        parse_name(FILE, incoming.input_file_id, "input_file_id"),
        incoming.endpoint,
        _metadata(incoming.metadata),
        _output_seconds(incoming.output_expires_after),
    )


def _output_seconds(expiry: _Expiry | None) -> int | None:
    if expiry is None:
        return None
    return expiry_seconds(expiry.anchor, expiry.seconds, "output_expires_after")


def _metadata(labels: Mapping[str, str] | None) -> dict[str, str] | None:
    """The caller's own labels, bounded; kept in clear, so a secret among them is masked."""
    if labels is None:
        return None
    if len(labels) > _MOST_LABELS:
        raise _wrong("metadata", f"at most {_MOST_LABELS} pairs are allowed")
    for name, text in labels.items():
        if len(name) > _LABEL_CHARS or len(text) > _TEXT_CHARS:
            bounds = f"{_LABEL_CHARS} characters in a key and {_TEXT_CHARS} in a value"
            raise _wrong("metadata", f"at most {bounds} are allowed")
        if "\0" in name or "\0" in text:
            raise _wrong("metadata", "text can't hold NUL characters (\\u0000)")
    return {mask(name): mask(text) for name, text in labels.items()}


class BatchFacts(msgspec.Struct, frozen=True):
    """A batch as its endpoints show it."""

    id: UUID
    endpoint: str
    model: str
    metadata: dict[str, str] | None
    input_file_id: UUID
    output_file_id: UUID | None
    error_file_id: UUID | None
    state: int
    errors: list[dict[str, Any]]
    total: int
    completed: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    created_at: datetime
    expires_at: datetime
    in_progress_at: datetime | None
    finalizing_at: datetime | None
    cancelling_at: datetime | None
    ended_at: datetime | None


_ENDS: Final = {
    BatchState.COMPLETED: "completed_at",
    BatchState.FAILED: "failed_at",
    BatchState.EXPIRED: "expired_at",
    BatchState.CANCELLED: "cancelled_at",
}


def batch_object(facts: BatchFacts) -> dict[str, Any]:
    """OpenAI's batch object; its files are named once it has ended."""
    state = BatchState(facts.state)
    ends = {name: _seconds(facts.ended_at) if state == end else None for end, name in _ENDS.items()}
    ended = facts.ended_at is not None
    return {
        "id": batch_name(facts.id),
        "object": "batch",
        "endpoint": facts.endpoint,
        "model": facts.model or None,
        "errors": {"object": "list", "data": facts.errors} if facts.errors else None,
        "input_file_id": file_name(facts.input_file_id),
        "completion_window": WINDOW,
        "status": state.name.lower(),
        "output_file_id": _file(facts.output_file_id) if ended else None,
        "error_file_id": _file(facts.error_file_id) if ended else None,
        "created_at": _seconds(facts.created_at),
        "in_progress_at": _seconds(facts.in_progress_at),
        "expires_at": _seconds(facts.expires_at),
        "finalizing_at": _seconds(facts.finalizing_at),
        "cancelling_at": _seconds(facts.cancelling_at),
        **ends,
        "request_counts": {
            "total": facts.total,
            "completed": facts.completed,
            "failed": facts.failed,
        },
        "usage": {
            "input_tokens": facts.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": facts.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": facts.prompt_tokens + facts.completion_tokens,
        },
        "metadata": facts.metadata,
    }


def too_many_batches(limit: int) -> TooMany:
    """429: the tenant has ``limit`` batches that have not ended."""
    return TooMany(
        f"Your tenant has {limit} batches that have not ended, which is the most allowed. "
        "Try again when one has ended.",
        code="too_many_batches",
        retry_after=60,
    )


def no_input(purpose: str) -> Invalid:
    """400: the file is none that a batch can be made of."""
    return _wrong("input_file_id", f"a file of the purpose 'batch' is needed, not '{purpose}'")


def over_already(batch_id: UUID, state: int) -> Conflict:
    """409: the batch can't be cancelled any more."""
    status = BatchState(state).name.lower()
    return Conflict(
        f"The batch '{batch_name(batch_id)}' is {status}: it can't be cancelled any more.",
        code="batch_not_cancellable",
    )


def _file(file_id: UUID | None) -> str | None:
    return file_name(file_id) if file_id else None


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment else None


def _wrong(param: str, reason: str) -> Invalid:
    return Invalid(f"Invalid '{param}': {reason}.", code="invalid_value", param=param)
