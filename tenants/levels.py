"""How far a limit is drawn on, in the levels at which people are warned."""

from tenants.models import LEVELS


def threshold(limit: int, level: int) -> int:
    """The least that is ``level`` percent of ``limit``, in the limit's unit, rounded up."""
    return -(-limit * level // 100)


def level_reached(taken: int, limit: int | None) -> int | None:
    """The highest level that ``taken`` has reached; None below the first, or without a limit.

    A limit of nought has no shares: nothing can be drawn on it, so it reaches no level.
    """
    if not limit:
        return None
    return max((level for level in LEVELS if taken >= threshold(limit, level)), default=None)
