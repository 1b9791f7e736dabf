"""Vectors without a model: the same text gives the same vector, others point elsewhere."""

import hashlib
from collections.abc import Sequence

from inference.engines.base import GenerationRequest, Message
from inference.engines.embedding import scores
from inference.engines.vectors import Vector, pack_vectors, unit


def fake_answer(request: GenerationRequest, dimensions: int) -> str:
    """The answer to a request that embeds or ranks.

    Args:
        dimensions: length of the vectors where the request asks for none.
    """
    embedding = request.embedding
    assert embedding is not None, "it embeds"
    vectors = _vectors(request.messages, embedding.dimensions or dimensions)
    if embedding.kind == "rank":
        vectors = [scores(vectors, pairs=False)]
    return pack_vectors(vectors)


def _vectors(messages: Sequence[Message], dimensions: int) -> list[Vector]:
    return [_vector(message.content, dimensions) for message in messages]


def _vector(text: str, dimensions: int) -> Vector:
    drawn = hashlib.shake_128(text.encode()).digest(2 * dimensions)
    pairs = zip(drawn[::2], drawn[1::2], strict=True)
    return unit([(high * 256 + low) / 32_768 - 1 for high, low in pairs])
