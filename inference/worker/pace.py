"""How fast a full worker works: the measure of how long others must wait for it."""

from typing import Final

_HALF_LIFE_SECONDS: Final = 20.0
# Less than this of full work says too little.
_LEAST_SECONDS: Final = 0.5


class Pace:
    """Reserved tokens a second that leave a full engine, the recent past counting most.

    Only time in which every slot was taken counts: an engine that has room is as slow as its
    callers. One thread writes, any may read.
    """

    def __init__(self) -> None:
        self._full_since: float | None = None
        self._seconds = 0.0
        self._tokens = 0.0

    def ended(self, tokens: int, *, now: float, full: bool) -> None:
        """Jobs with this many reserved tokens have left.

        Args:
            now: of a monotonic clock, in seconds.
            full: whether every slot is taken again.
        """
        if self._full_since is not None:
            span = max(0.0, now - self._full_since)
            fade = 0.5 ** (span / _HALF_LIFE_SECONDS)
            self._seconds = self._seconds * fade + span
            self._tokens = self._tokens * fade + tokens
        self._full_since = now if full else None

    def filled(self, *, now: float, full: bool) -> None:
        """Jobs have come."""
        if full and self._full_since is None:
            self._full_since = now
        elif not full:
            self._full_since = None

    @property
    def tokens_per_second(self) -> float | None:
        """None until the engine has been full for a while."""
        return self._tokens / self._seconds if self._seconds >= _LEAST_SECONDS else None
