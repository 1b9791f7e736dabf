"""Lines that show an operator what goes on: one a step, with a dot for every second."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_DOT_EVERY_S = 1.0


class Progress:
    """Prints steps as they go; works alike on a terminal and in a log file."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._begun = time.monotonic()
        self._open = False

    def line(self, text: str) -> None:
        """Print a line of its own."""
        if self._open:
            self._write("\n")
            self._open = False
        self._write(f"{text}\n")

    def note(self, text: str) -> None:
        """Add a word to the step that is under way."""
        self._write(f"{text} " if self._open else f"  {text}\n")

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[], None]]:
        """Announce a step; yields a function to call often, which shows that time passes."""
        begun = last = time.monotonic()
        self._write(f"  {text} ")
        self._open = True

        def tick() -> None:
            nonlocal last
            if self._open and time.monotonic() - last >= _DOT_EVERY_S:
                last += _DOT_EVERY_S
                self._write(".")

        try:
            yield tick
        except BaseException:
            if self._open:
                self._write("\n")
                self._open = False
            raise
        took = time.monotonic() - begun
        if self._open:
            self._write(f" {took:.1f} s\n")
            self._open = False
        else:
            self._write(f"  {text}: {took:.1f} s\n")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            # Whoever read our lines has gone; the installation goes on.
            self._open = False
