"""When an attempt that failed is followed by the next: about a day of tries, then no more."""

from typing import Final

FIRST_SECONDS: Final = 60.0
LONGEST_SECONDS: Final = 6 * 3600.0
MOST_TRIES: Final = 13
# A delay is shortened by up to a quarter, so that what failed together does not come together.
_JITTER: Final = 0.25


def retry_seconds(tries: int, chance: float) -> float | None:
    """Seconds until the next attempt; None once it is given up.

    One minute, doubled each time, at most six hours; the last of 13 tries comes 20 to 27 hours
    after the first.

    Args:
        tries: how many there have been, 1 or more.
        chance: uniformly random, from 0 up to 1.
    """
    if tries >= MOST_TRIES:
        return None
    delay = min(FIRST_SECONDS * 2.0 ** (tries - 1), LONGEST_SECONDS)
    return delay * (1 - _JITTER * chance)
