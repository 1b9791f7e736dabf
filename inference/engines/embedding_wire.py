"""Embeddings and rankings as servers of several families speak of them.

Sources: vLLM ``vllm/entrypoints/pooling``, SGLang ``sglang/srt/entrypoints/openai/protocol.py``,
llama.cpp ``tools/server/README.md``, Text Embeddings Inference ``router/src/http/types.rs``.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from inference.engines.remote.faults import failed
from inference.engines.vectors import Vector, unit, unpack_vector

TEI: Final = "tei"
TAKES_IDS: Final = frozenset({"vllm", "sglang", "llamacpp"})
"""Families whose embeddings are asked for by token ids."""

# Servers round; what is further from length 1 was not brought to it.
_LENGTH_TOLERANCE: Final = 1e-3

Inputs = Sequence[str] | Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a server answered.

    Args:
        vectors: one of each input, of length 1; of a ranking one, with the score of each document.
        tokens: prompt tokens by the server's own count; None where it tells none.
    """

    vectors: list[Vector]
    tokens: int | None


def embedding_call(
    family: str, model: str, inputs: Inputs, cache_salt: str
) -> tuple[str, dict[str, Any]]:
    """Path and body of what asks for a vector of each input."""
    if family == TEI:
        # It would cut by itself what is too long.
        return "/embed", {"inputs": inputs, "truncate": False, "normalize": True}
    body: dict[str, Any] = {"model": model, "input": inputs}
    if family != "sglang":
        body["encoding_format"] = "base64"
    if family == "vllm":
        body["cache_salt"] = cache_salt
    return "/v1/embeddings", body


def ranking_call(
    family: str, model: str, query: str, documents: Sequence[str], cache_salt: str
) -> tuple[str, dict[str, Any]]:
    """Path and body of what asks how well each document answers the query."""
    if family == TEI:
        return "/rerank", {"query": query, "texts": documents, "truncate": False}
    body: dict[str, Any] = {"model": model, "query": query, "documents": documents}
    if family == "sglang":
        body["return_documents"] = False
    if family == "vllm":
        body["cache_salt"] = cache_salt
    return "/v1/rerank", body


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        return self.prompt_tokens if self.prompt_tokens is not None else self.total_tokens


class _Embedding(msgspec.Struct):
    embedding: list[float] | str
    index: int


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    usage: _Usage | None = None


class _Score(msgspec.Struct):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class _Ranking(msgspec.Struct):
    results: list[_Score]
    usage: _Usage | None = None


_decode_embeddings: Final = msgspec.json.Decoder(list[list[float]] | _Embeddings).decode
_decode_ranking: Final = msgspec.json.Decoder(list[_Score] | _Ranking).decode


def read_embeddings(content: bytes, count: int) -> Numbers:
    """The vectors in an answer, in the order of their inputs.

    Raises:
        UpstreamFault: it is none, or not one of each of the ``count`` inputs.
    """
    try:
        found = _decode_embeddings(content)
        if isinstance(found, list):
            vectors, tokens = [array("f", numbers) for numbers in found], None
        else:
            ordered = sorted(found.data, key=lambda one: one.index)
            _check_places([one.index for one in ordered], count)
            vectors = [_vector(one.embedding) for one in ordered]
            tokens = found.usage.tokens if found.usage is not None else None
    except (ValueError, OverflowError):
        raise _malformed() from None
    _check_places(range(len(vectors)), count)
    if len({len(vector) for vector in vectors}) != 1 or not vectors[0]:
        raise _malformed()
    return Numbers([_of_length_one(vector) for vector in vectors], tokens)


def read_ranking(content: bytes, count: int) -> Numbers:
    """The scores in an answer, in the order of the documents.

    Raises:
        UpstreamFault: it is none, or not one of each of the ``count`` documents.
    """
    try:
        found = _decode_ranking(content)
        results = found if isinstance(found, list) else found.results
        ordered = sorted(results, key=lambda one: one.index)
        _check_places([one.index for one in ordered], count)
        scores = array("f", [_score(one) for one in ordered])
    except (ValueError, OverflowError):
        raise _malformed() from None
    if not all(map(math.isfinite, scores)):
        raise _malformed()
    usage = None if isinstance(found, list) else found.usage
    return Numbers([scores], usage.tokens if usage is not None else None)


class Info(msgspec.Struct):
    """What Text Embeddings Inference says of itself at ``/info``."""

    max_client_batch_size: int
    max_input_length: int
    model_type: dict[str, Any] = {}


def read_info(content: bytes) -> Info:
    """What the server says of itself.

    Raises:
        UpstreamFault: it is another server.
    """
    try:
        return msgspec.json.decode(content, type=Info)
    except msgspec.DecodeError:
        raise failed("The server is no Text Embeddings Inference: its /info is another.") from None


def _vector(given: list[float] | str) -> Vector:
    return unpack_vector(given) if isinstance(given, str) else array("f", given)


def _score(one: _Score) -> float:
    found = one.score if one.relevance_score is None else one.relevance_score
    if found is None:
        raise ValueError("no score")
    return found


def _of_length_one(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    if not math.isfinite(length):
        raise _malformed()
    return vector if abs(length - 1) < _LENGTH_TOLERANCE else unit(vector)


def _check_places(places: Sequence[int], count: int) -> None:
    if list(places) != list(range(count)):
        raise failed("The serving engine did not answer each input once.")


def _malformed() -> Exception:
    return failed("The serving engine's numbers are malformed.")
