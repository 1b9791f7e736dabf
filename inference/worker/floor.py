"""Below which start tag a worker's claims do not look."""

from collections import deque
from typing import Final

from inference.fair_order import earliest_tag

LOOK_SECONDS: Final = 1.0
"""So often a claim goes without a floor."""

# How far behind the clock a claim still looks; see ``claims.CLAIM``.
LAG_SECONDS: Final = 2.0


class Floor:
    """The lowest start tag that was claimed of late; times are in seconds of one clock.

    A job that is put back stands far below. A claim without a floor finds it, once a second; the
    lowest tag, not the latest, so that the claims after it find what was put back beside it.
    """

    def __init__(self) -> None:
        # Times and tags of claims of late, without those that a later and lower one makes useless.
        self._lows: deque[tuple[float, int]] = deque()
        self._claiming_since = float("inf")
        self._look_at = 0.0

    def due(self, now: float) -> bool:
        """Whether the next claim goes without a floor."""
        return now >= self._look_at

    def next(self, now: float) -> int:
        """The floor of a claim that is made now; 0 is none."""
        if self.due(now):
            self._look_at = now + LOOK_SECONDS
            return 0
        if self._claiming_since > now - LAG_SECONDS:
            return 0
        # The last of before stays: what was claimed since then may hide what commits only now.
        while len(self._lows) > 1 and self._lows[1][0] < now - LAG_SECONDS:
            self._lows.popleft()
        return earliest_tag(self._lows[0][1])

    def note(self, tag: int, now: float) -> None:
        """Jobs were claimed of which the first has this tag."""
        self._claiming_since = min(self._claiming_since, now)
        while self._lows and self._lows[-1][1] >= tag:
            self._lows.pop()
        self._lows.append((now, tag))
