"""Vectors as the text of an answer, which is how they travel from an engine to a caller."""

import math
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Vector = array[float]
else:
    # Before Python 3.12 an array has no parameter at run time.
    Vector = array
"""Numbers of 32 bits (``array("f")``)."""

_SEPARATOR = ","


def pack_vectors(vectors: Iterable[Vector]) -> str:
    """The vectors as text: base64 of each one's little-endian 32-bit floats, with commas between.

    So each is what OpenAI's clients ask for as ``encoding_format: base64``, and need not be packed
    again for them.
    """
    return _SEPARATOR.join(
        b64encode(_little_endian(vector).tobytes()).decode() for vector in vectors
    )


def packed_vectors(text: str) -> list[str]:
    """The base64 of each vector."""
    return text.split(_SEPARATOR) if text else []


def unpack_vector(packed: str) -> Vector:
    """The vector of which ``packed`` is the base64."""
    return _little_endian(array("f", b64decode(packed)))


def dot(one: Vector, other: Vector) -> float:
    """The product of two vectors: their cosine, if both have length 1."""
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def unit(numbers: Sequence[float]) -> Vector:
    """The vector of length 1 in the direction of ``numbers``; zeros stay zeros."""
    length = math.sqrt(math.fsum(n * n for n in numbers)) or 1.0
    return array("f", (n / length for n in numbers))


def _little_endian(vector: Vector) -> Vector:
    if sys.byteorder == "little":
        return vector
    swapped = vector[:]
    swapped.byteswap()
    return swapped
