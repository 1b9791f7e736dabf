"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, within: float = 20.0, what: str = "") -> T:
    """Asks ``probe`` until its answer is true, and returns that answer.

    Args:
        within: seconds after which the wait is given up.
        what: what is waited for, for the failure's message.

    Raises:
        AssertionError: it never was; the last answer is in the message.
    """
    deadline = time.monotonic() + within
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(
                f"Not within {within:g} s: {what or probe}; last answer {answer!r}."
            )
        time.sleep(0.01)
