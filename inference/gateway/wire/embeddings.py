"""The dialect of ``/v1/embeddings``: OpenAI's embeddings."""

from collections.abc import Sequence
from typing import ClassVar, Final

import msgspec

from inference.engines.base import Message
from inference.engines.vectors import packed_vectors, unpack_vector
from inference.gateway.wire import checks
from inference.gateway.wire.checks import DEFAULT_LIMITS, invalid, nul
from inference.gateway.wire.common import Ending, Inputs, Opening, ParsedRequest, StreamEncoder
from inference.gateway.wire.diagnose import refusal_of
from inference.gateway.wire.style import OPENAI, Style

MOST_INPUTS: Final = 2048
MOST_DIMENSIONS: Final = 2**16

_ROLES: Final = {None: "document", "document": "document", "passage": "document", "query": "query"}
_FORMATS: Final = {None: False, "float": False, "base64": True}

_encode: Final = msgspec.json.Encoder().encode

_One = str | int | list[int]


class IncomingEmbedding(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/embeddings``; ``input_type`` is not OpenAI's."""

    model: str
    input: str | list[_One]
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    input_type: str | None = None


_decoder: Final = msgspec.json.Decoder(IncomingEmbedding)


class EmbeddingsDialect:
    """OpenAI's embeddings."""

    style: ClassVar[Style] = OPENAI

    def parse(self, body: bytes) -> ParsedRequest:
        limits = DEFAULT_LIMITS
        try:
            incoming = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            raise refusal_of(body, fault, limits.depth) from None
        if incoming.encoding_format not in _FORMATS:
            raise invalid("encoding_format", "use 'float' or 'base64'")
        if incoming.input_type not in _ROLES:
            raise invalid("input_type", "use 'query' or 'document'")
        if incoming.dimensions is not None and not 1 <= incoming.dimensions <= MOST_DIMENSIONS:
            raise checks.out_of_range(
                "dimensions", "integer", incoming.dimensions, 1, MOST_DIMENSIONS
            )
        texts, ids, places = _inputs(incoming.input)
        role = _ROLES[incoming.input_type]
        return ParsedRequest(
            model=checks.checked_model(incoming.model, limits),
            messages=tuple(Message(role, text) for text in texts),
            stream=False,
            include_usage=False,
            temperature=None,
            top_p=None,
            max_tokens=None,
            stop=(),
            seed=None,
            user=checks.checked_label("user", incoming.user, limits),
            param="input",
            inputs=Inputs(
                "embed",
                places,
                ids=ids,
                dimensions=incoming.dimensions,
                packed=_FORMATS[incoming.encoding_format],
            ),
        )

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        inputs = opening.request.inputs
        assert inputs is not None
        return embeddings_object(
            text, inputs.packed, opening.request.model, ending.usage.prompt_tokens
        )

    def stream(self, opening: Opening) -> StreamEncoder:
        raise AssertionError("embeddings are not streamed")


def embeddings_object(text: str, packed: bool, model: str, tokens: int) -> bytes:
    """OpenAI's list of embeddings.

    Args:
        text: made by ``pack_vectors``.
        packed: vectors are told as base64, and not as numbers.
        tokens: prompt tokens.
    """
    found = packed_vectors(text)
    vectors = [b'"%s"' % v.encode() for v in found] if packed else map(_numbers, found)
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%s}' % pair for pair in enumerate(vectors)
    )
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    return b'{"object":"list","data":[%s],"model":%s,"usage":%s}' % (data, _encode(model), usage)


def _numbers(packed: str) -> bytes:
    return _encode(unpack_vector(packed).tolist())


def _inputs(
    given: str | list[_One],
) -> tuple[list[str], tuple[Sequence[int], ...], tuple[str, ...]]:
    """Texts, or token ids with empty texts, and which parameter holds each."""
    if isinstance(given, str):
        return [_text("input", given)], (), ("input",)
    if not given:
        raise invalid("input", "at least one input is needed", "empty_array")
    if isinstance(given[0], int):
        return [""], (_ids("input", given),), ("input",)
    if len(given) > MOST_INPUTS:
        reason = f"expected at most {MOST_INPUTS} inputs, but got {len(given)} instead"
        raise invalid("input", reason, "array_too_long")
    places = tuple(f"input[{n}]" for n in range(len(given)))
    if isinstance(given[0], str):
        texts = [_text(place, one) for place, one in zip(places, given, strict=True)]
        return texts, (), places
    ids = tuple(_ids(place, one) for place, one in zip(places, given, strict=True))
    return [""] * len(ids), ids, places


def _text(place: str, given: _One) -> str:
    if not isinstance(given, str):
        raise _mixed(place)
    if not given:
        raise invalid(place, "there is nothing to embed", "empty_string")
    if "\0" in given:
        raise nul(place)
    return given


def _ids(place: str, given: str | int | Sequence[_One]) -> Sequence[int]:
    if not isinstance(given, list) or not all(isinstance(one, int) for one in given):
        raise _mixed(place)
    if not given:
        raise invalid(place, "there is nothing to embed", "empty_array")
    return given


def _mixed(place: str) -> Exception:
    return invalid(place, "all inputs must be strings, or all must be arrays of token ids")
