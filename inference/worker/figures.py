"""What a worker's engine takes and does, for the beat that tells of it."""

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from inference.engines.base import EngineStats

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_SPAN_SECONDS: Final = 5.0
"""The rate is of about so long, however often there is a beat."""


class Figures:
    """Figures of the engine at each beat; one thread asks."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, int]] = deque()

    def row(self, stats: EngineStats | None) -> dict[str, Any]:
        """As the worker's row keeps them; ``None`` while no model is held."""
        memory = {"resident_bytes": resident_bytes()}
        if stats is None:
            self._past.clear()
            nothing = {"waiting": 0, "memory_bytes": 0, "cache_tokens": 0, "cached_tokens": 0}
            return {**memory, **nothing, "tokens_per_second": None}
        return {
            **memory,
            "waiting": stats.waiting,
            "memory_bytes": stats.memory_bytes,
            "cache_tokens": stats.cache_tokens,
            "cached_tokens": stats.cached_tokens,
            "tokens_per_second": self._rate(stats.generated_tokens, time.monotonic()),
        }

    def _rate(self, generated: int, now: float) -> float:
        past = self._past
        if past and generated < past[-1][1]:
            # Another engine counts from nothing.
            past.clear()
        past.append((now, generated))
        while len(past) > 2 and past[1][0] <= now - _SPAN_SECONDS:
            past.popleft()
        span = now - past[0][0]
        return (generated - past[0][1]) / span if span > 0 else 0.0


def resident_bytes() -> int:
    """Main memory of this process and its descendants: an engine may be one, and have its own."""
    return sum(_resident(pid) for pid in _family("self"))


def _family(pid: str) -> list[str]:
    found = [pid]
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in listing.read_text().split():
                found += _family(child)
    return found


def _resident(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
