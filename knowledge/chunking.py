"""Cuts a text into passages: along its paragraphs and sentences, each with a little of the last.

Sizes are in units, about as many as a model's tokens: a CJK character is one, another character
a fraction, so that a passage of either script fits the 512 tokens of common embedding models.
"""

import re
from collections.abc import Iterator
from typing import Final

from knowledge.words import count_cjk

UNITS: Final = 380
"""The most that a passage has."""

OVERLAP: Final = 60
"""At most so much of a passage's end begins the next one."""

_OTHER_CHARACTER: Final = 0.3
_PARAGRAPH: Final = re.compile(r"\n\s*\n")
# Ends of sentences, in their Chinese form (full width) and in the other.
_ENDS: Final = "\u3002\uff01\uff1f\uff1b!?;"
_SENTENCE: Final = re.compile(rf"[^{_ENDS}.\n]+(?:[{_ENDS}]+|\.(?=\s|$)|\.|\n|$)|[{_ENDS}.\n]+")


def units(text: str) -> float:
    """How much of a passage a text takes."""
    of_one = count_cjk(text)
    return of_one + _OTHER_CHARACTER * (len(text) - of_one)


def passages(text: str) -> Iterator[str]:
    """The passages of a text, in order; none of a text of blanks."""
    held: list[str] = []
    size = 0.0
    fresh = False
    for piece in _pieces(text):
        more = units(piece)
        if fresh and size + more > UNITS:
            yield _joined(held)
            held = _tail(held, OVERLAP, UNITS - more)
            size = units("".join(held))
        held.append(piece)
        size += more
        fresh = True
    if fresh and (last := _joined(held)):
        yield last


def _pieces(text: str) -> Iterator[str]:
    """Sentences, each with what parts it from the next; none of them larger than a passage."""
    for number, paragraph in enumerate(p for p in _PARAGRAPH.split(text) if p.strip()):
        if number:
            yield "\n\n"
        for sentence in _SENTENCE.findall(paragraph.strip()):
            yield from _bounded(sentence)


def _bounded(sentence: str) -> Iterator[str]:
    if units(sentence) <= UNITS:
        yield sentence
        return
    start, size = 0, 0.0
    for place, character in enumerate(sentence):
        more = units(character)
        if size + more > UNITS:
            yield sentence[start:place]
            start, size = place, 0.0
        size += more
    yield sentence[start:]


def _tail(pieces: list[str], most: float, room: float) -> list[str]:
    """The last whole pieces that fit both."""
    kept: list[str] = []
    left = min(most, room)
    for piece in reversed(pieces):
        left -= units(piece)
        if left < 0:
            break
        kept.insert(0, piece)
    return kept


def _joined(pieces: list[str]) -> str:
    return "".join(pieces).strip()
