"""What a webhook says: how a job ended, and never what was asked or answered."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from inference.models.jobs import JobState

TEST: str = "webhook.test"
"""The type of an event that tells of no job."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens that were charged."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Error(msgspec.Struct, frozen=True):
    code: str
    message: str


class JobEnd(msgspec.Struct, frozen=True):
    """The end of a job; ``state`` is the last word of the event's type."""

    job_id: UUID
    state: str
    model: str
    finish_reason: str | None
    usage: Usage
    error: Error | None
    metadata: dict[str, Any]


class Message(msgspec.Struct, frozen=True):
    """The body of a webhook; the same bytes at every attempt."""

    type: str
    id: str
    timestamp: datetime
    data: JobEnd | dict[str, str]


_encode = msgspec.json.Encoder().encode


def job_message(
    webhook_id: str,
    *,
    job_id: UUID,
    state: JobState,
    model: str,
    finished_at: datetime,
    finish_reason: str,
    prompt_tokens: int,
    completion_tokens: int,
    error_code: str,
    error_message: str,
    metadata: dict[str, Any] | None,
) -> bytes:
    """The body that tells of a job's end.

    Args:
        prompt_tokens: of the prompt, charged if anything was delivered or the job succeeded.
        completion_tokens: delivered.
    """
    name = state.name.lower()
    charged = prompt_tokens if completion_tokens or state == JobState.SUCCEEDED else 0
    end = JobEnd(
        job_id,
        name,
        model,
        finish_reason or None,
        Usage(charged, completion_tokens, charged + completion_tokens),
        Error(error_code, error_message) if error_code else None,
        metadata or {},
    )
    return _encode(Message(f"job.{name}", webhook_id, finished_at, end))


def event_message(webhook_id: str, *, event: str, at: datetime, data: dict[str, str]) -> bytes:
    """The body that tells of something else than a job's end."""
    return _encode(Message(event, webhook_id, at, data))


def trial_message(webhook_id: str, at: datetime) -> bytes:
    """The body of an event that only tries whether the receiver is there."""
    return _encode(Message(TEST, webhook_id, at, {"text": "This is a test."}))
