"""Telling callers that have heard nothing for a while how their jobs stand in PostgreSQL."""

import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from inference.gateway.jobs import Status
from inference.gateway.waiting import Waiter
from inference.returns import Text


def tell(silent: Sequence[Waiter], found: Mapping[UUID, Status]) -> None:
    """Tells each waiter how its job stands; of one that is not found, that nothing will come."""
    now = time.monotonic()
    for waiter in silent:
        waiter.heard_at = now
        status = found.get(waiter.job_id)
        if status is None:
            waiter.break_off()
        elif status.end is not None:
            _conclude(waiter, status)
        elif waiter.stream and waiter.received and status.fence != waiter.fence:
            # It runs again, elsewhere, but this caller has already seen text of its first run.
            waiter.break_off()


def _conclude(waiter: Waiter, status: Status) -> None:
    end = status.end
    assert end is not None
    if waiter.lacks(end) > 0:
        if status.answer is None or waiter.received:
            waiter.break_off()
            return
        tokens = end.completion_tokens
        waiter.put(Text(waiter.job_id.bytes, end.fence, 0, tokens, status.answer))
    waiter.put(end)
