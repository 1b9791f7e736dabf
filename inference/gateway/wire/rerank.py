"""The dialect of ``/v1/rerank``: the shape that Cohere, Jina and vLLM have in common."""

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

MOST_DOCUMENTS: Final = 1000

_encode: Final = msgspec.json.Encoder().encode


class Document(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A document as an object."""

    text: str


class IncomingRerank(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/rerank``."""

    model: str
    query: str
    documents: list[str | Document]
    top_n: int | None = None
    return_documents: bool | None = None
    user: str | None = None


_decoder: Final = msgspec.json.Decoder(IncomingRerank)


class RerankDialect:
    """Documents in the order in which they answer a query."""

    style: ClassVar[Style] = OPENAI

    def parse(self, body: bytes) -> ParsedRequest:
        limits = DEFAULT_LIMITS
        try:
            incoming = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            raise refusal_of(body, fault, limits.depth) from None
        documents = incoming.documents
        if not documents:
            raise invalid("documents", "at least one document is needed", "empty_array")
        if len(documents) > MOST_DOCUMENTS:
            reason = (
                f"expected at most {MOST_DOCUMENTS} documents, but got {len(documents)} instead"
            )
            raise invalid("documents", reason, "array_too_long")
        if incoming.top_n is not None and incoming.top_n < 1:
            raise checks.out_of_range("top_n", "integer", incoming.top_n, 1, MOST_DOCUMENTS)
        places = ("query", *(f"documents[{n}]" for n in range(len(documents))))
        texts = (incoming.query, *(d if isinstance(d, str) else d.text for d in documents))
        for place, text in zip(places, texts, strict=True):
            _check(place, text)
        return ParsedRequest(
            model=checks.checked_model(incoming.model, limits),
            messages=(
                Message("query", texts[0]),
                *(Message("document", text) for text in texts[1:]),
            ),
            stream=False,
            include_usage=False,
            temperature=None,
            top_p=None,
            max_tokens=None,
            stop=(),
            seed=None,
            user=checks.checked_label("user", incoming.user, limits),
            param="documents",
            inputs=Inputs(
                "rank",
                places,
                top=incoming.top_n,
                documents=incoming.return_documents is True,
            ),
        )

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        request, inputs = opening.request, opening.request.inputs
        assert inputs is not None
        return ranking_object(
            text,
            job=opening.job,
            model=request.model,
            tokens=ending.usage.prompt_tokens,
            top=inputs.top,
            documents=request.messages[1:] if inputs.documents else (),
        )

    def stream(self, opening: Opening) -> StreamEncoder:
        raise AssertionError("rankings are not streamed")


def ranking_object(
    text: str,
    *,
    job: str,
    model: str,
    tokens: int,
    top: int | None,
    documents: Sequence[Message] = (),
) -> bytes:
    """The documents' places and scores, the best first.

    Args:
        text: made by ``pack_vectors`` of one vector of all scores.
        job: the job's id in hex.
        tokens: prompt tokens.
        top: how many results; None for all.
        documents: all of them, where results repeat their texts.
    """
    (packed,) = packed_vectors(text)
    scores = unpack_vector(packed)
    order = sorted(range(len(scores)), key=lambda n: -scores[n])
    results = []
    for index in order[:top]:
        result: dict[str, object] = {"index": index, "relevance_score": scores[index]}
        if documents:
            result["document"] = {"text": documents[index].content}
        results.append(result)
    return _encode(
        {
            "id": f"rerank-{job}",
            "model": model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _check(place: str, text: str) -> None:
    if not text:
        raise invalid(place, "it is empty", "empty_string")
    if "\0" in text:
        raise nul(place)
