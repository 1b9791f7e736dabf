"""Bounds of integers as ranges that every compiler of grammars gets right.

xgrammar, which OpenVINO and vLLM compile schemas with, writes a range as patterns of digits. Where
both ends have as many digits and begin alike, some patterns let others through: 0..120 allows 129.
Bounds on one side alone are wrong below 10. Any range is a union of others that it writes rightly.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

Range = tuple[int | None, int | None]
"""The least and the greatest integer, both inside; None for no bound."""

# Integers without a lower bound, where an upper one needs it: whole numbers of 15 digits, which
# every reader of JSON keeps exactly.
_LOWEST: Final = -(10**15 - 1)


def exact_ranges(least: int | None, greatest: int | None, most: int) -> list[Range] | None:
    """Ranges whose union is ``least..greatest``, ordered; a range that is right stays alone.

    Args:
        least: None for no bound.
        greatest: at least ``least``; None for no bound.
        most: of ranges.

    Returns:
        None if more ranges would be needed.
    """
    found = list(islice(_split(least, greatest, most), most + 1))
    return found if len(found) <= most else None


def _split(least: int | None, greatest: int | None, most: int) -> Iterator[Range]:
    if least is None and greatest is None:
        yield None, None
    elif greatest is None:
        yield from _above(least or 0, most)
    elif least is None:
        yield from _below(greatest, most)
    elif _is_exact(least, greatest):
        yield least, greatest
    else:
        if least < 0:
            # Of quadrillions no more are made than it takes to see that they are too many.
            mirrored = list(islice(_naturals(max(1, -greatest), -least), most + 1))
            yield from ((-high, -low) for low, high in reversed(mirrored))
        if least <= 0 <= greatest:
            yield 0, 0
        if greatest > 0:
            yield from _naturals(max(1, least), greatest)


def _above(least: int, most: int) -> Iterator[Range]:
    if least < 0:
        yield from _split(least, -1, most)
        yield 0, None
    elif 1 < least < 10:
        yield least, 9
        yield 10, None
    else:
        yield least, None


def _below(greatest: int, most: int) -> Iterator[Range]:
    if greatest == -1:
        yield None, -1
    elif greatest < -1:
        yield from _split(min(_LOWEST, greatest), greatest, most)
    elif _is_exact(0, greatest):
        yield None, greatest
    else:
        yield None, 0
        yield from _naturals(1, greatest)


def _is_exact(least: int, greatest: int) -> bool:
    """Whether the range is written rightly as it is: its negatives, and its positives."""
    signs = [(max(1, least), greatest), (max(1, -greatest), -least)]
    return all(
        _is_written(*part) for low, high in signs if low <= high for part in _lengths(low, high)
    )


def _lengths(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The parts of each number of digits; ``low`` is at least 1."""
    for digits in range(len(str(low)), len(str(high)) + 1):
        yield max(low, 10 ** (digits - 1)), min(high, 10**digits - 1)


def _is_written(low: int, high: int) -> bool:
    """Whether a range of numbers of as many digits is written rightly."""
    first, last = str(low), str(high)
    alike = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=True)) if a != b), len(first)
    )
    if alike == 0 or alike >= len(first) - 1:
        return True
    if alike == len(first) - 2:
        return first.endswith("0") and last.endswith("9")
    return first == "1" + "0" * (len(first) - 1) or last == "9" * len(first)


def _naturals(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that begins at 1 or above."""
    for first, last in _lengths(low, high):
        if _is_written(first, last):
            yield first, last
        else:
            yield from _blocks(first, last)


def _blocks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """Tens where the ends are not whole hundreds, and hundreds, or parts of one, between them."""
    while low <= high:
        step = 100 if low % 100 == 0 and low + 99 <= high else 10
        if step == 10 and low % 10 == 0 and low + 9 <= high:
            last = min(low - low % 100 + 99, high - (high + 1) % 10)
        else:
            last = min(low - low % step + step - 1, high)
        yield low, last
        low = last + 1
