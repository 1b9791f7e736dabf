"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    probe: Callable[[], T],
    *,
    within: float = 20.0,
    every: float = 0.01,
    what: str | Callable[[], str] = "",
) -> T:
    """Asks ``probe`` until its answer is true, and returns that answer.

    Args:
        within: seconds after which the wait is given up.
        every: seconds between two questions; more where a question is dear.
        what: what is waited for, for the failure's message; called only then if it is a function.

    Raises:
        AssertionError: it never was; the last answer is in the message.
    """
    deadline = time.monotonic() + within
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            told = what() if callable(what) else what or probe
            raise AssertionError(f"Not within {within:g} s: {told}; last answer {answer!r}.")
        time.sleep(every)
