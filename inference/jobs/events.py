"""A job's events, told from its row: what it is now, and what of that a client has not seen.

Nothing is stored for it. Each event's id says how far the job was: its fence, the phase within
that claim, a step that grows within the phase, and the place in the queue. Ids ascend, so that a
client that comes again with the last one it saw is told what has changed since, and nothing twice.
A state that lasts less than a second may go by untold.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import msgspec

from inference.models import Job, JobState
from inference.selectors import Place, place_of

RUNNING, WAITING, ENDED = 1, 2, 3
"""Phases of one claim: a job that is put back waits after it has run."""

_ID: Final = re.compile(r"([0-9]{1,9})\.([1-3])\.([0-9]{1,15})\.([0-9]{1,9})")


class Position(NamedTuple):
    """How far a job was when an event told of it; what comes later is greater."""

    fence: int
    phase: int
    step: int
    place: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The position in a ``Last-Event-ID`` header; None if it is no id of ours."""
        found = _ID.fullmatch(text)
        return cls(*map(int, found.groups())) if found else None

    def __str__(self) -> str:
        return ".".join(map(str, self))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment, and its place in the queue if it waits."""

    job: Job
    place: Place | None
    at: datetime

    @classmethod
    def of(cls, job: Job, at: datetime) -> Self:
        return cls(job, place_of(job), at)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event as it is told."""

    position: Position
    name: str
    data: dict[str, Any]

    def encode(self) -> bytes:
        """The event as its lines on the wire."""
        data = msgspec.json.encode(self.data)
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (
            str(self.position).encode(),
            self.name.encode(),
            data,
        )


def events_of(snapshot: Snapshot, seen: Position | None) -> list[JobEvent]:
    """What a client that has seen events up to ``seen`` is to be told, in order."""
    state = JobState(snapshot.job.state)
    if state == JobState.QUEUED:
        return _waiting(snapshot, seen)
    found = [_running(snapshot.job)] if snapshot.job.fence else []
    if state == JobState.RUNNING:
        found += _progress(snapshot.job)
    else:
        found.append(_ended(snapshot.job))
    return [event for event in found if seen is None or event.position > seen]


def is_over(seen: Position | None) -> bool:
    """Whether nothing follows what a client has seen."""
    return seen is not None and seen.phase == ENDED


def _waiting(snapshot: Snapshot, seen: Position | None) -> list[JobEvent]:
    job, place = snapshot.job, snapshot.place
    position = 0 if place is None else place.position
    milliseconds = max(0, int((snapshot.at - job.admitted_at).total_seconds() * 1000))
    event = JobEvent(
        Position(job.fence, WAITING, milliseconds, position),
        "queued",
        {
            "state": "queued",
            "position": None if place is None else place.position,
            "wait_seconds": None if place is None else place.wait_seconds,
        },
    )
    if seen is None or event.position[:2] > seen[:2]:
        return [event]
    # Of the same wait only another place is news, and a later one than was seen.
    news = position not in (0, seen.place) and event.position > seen
    return [event] if news and event.position[:2] == seen[:2] else []


def _running(job: Job) -> JobEvent:
    data = {"state": "running", "attempt": job.attempts}
    return JobEvent(Position(job.fence, RUNNING, 0, 0), "running", data)


def _progress(job: Job) -> Sequence[JobEvent]:
    if not job.watermark:
        return ()
    data = {"state": "running", "completion_tokens": job.watermark}
    return (JobEvent(Position(job.fence, RUNNING, job.watermark, 0), "progress", data),)


def _ended(job: Job) -> JobEvent:
    state = JobState(job.state).name.lower()
    data: dict[str, Any] = {
        "state": state,
        "finish_reason": job.finish_reason or None,
        "error": None,
        "usage": None,
    }
    if job.state == JobState.SUCCEEDED or job.watermark:
        data["usage"] = {
            "prompt_tokens": job.prompt_tokens,
            "completion_tokens": job.watermark,
            "total_tokens": job.prompt_tokens + job.watermark,
        }
    if job.error_code:
        data["error"] = {"code": job.error_code, "message": job.error_message}
    return JobEvent(Position(job.fence, ENDED, 0, 0), state, data)
