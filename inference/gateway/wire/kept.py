"""Answers that are kept until they are fetched: what may be asked for so, and how vectors are told.

A submitted job or a batch's line is a request to one of these endpoints. The text of its answer is
kept with the job, and is written out in the endpoint's own shape when somebody fetches it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from inference.gateway.wire.common import ParsedRequest
from inference.gateway.wire.embeddings import EmbeddingsDialect, embeddings_object
from inference.gateway.wire.request import parse_chat_request
from inference.gateway.wire.rerank import RerankDialect, ranking_object
from portal.core.errors import Invalid

CHAT_ENDPOINT: Final = "/v1/chat/completions"

_SHAPE: Final = "numbers"


@dataclass(frozen=True, slots=True)
class KeptEndpoint:
    """An endpoint whose answers can be kept.

    Attributes:
        parse: the request in a body; raises what is wrong with it.
        param: the parameter that holds the prompt, for refusals.
    """

    parse: Callable[[bytes], ParsedRequest]
    param: str


ENDPOINTS: Final[Mapping[str, KeptEndpoint]] = {
    CHAT_ENDPOINT: KeptEndpoint(parse_chat_request, "messages"),
    "/v1/embeddings": KeptEndpoint(EmbeddingsDialect().parse, "input"),
    "/v1/rerank": KeptEndpoint(RerankDialect().parse, "documents"),
}


class Numbers(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a kept answer of vectors or scores is told; see ``Inputs``."""

    kind: Literal["embed", "rank"]
    packed: bool = False
    top: int | None = None


def parse_kept(endpoint: str, body: bytes) -> ParsedRequest:
    """The request in ``body``, whose answer is going to be kept.

    Raises:
        Invalid: it is no request to that endpoint, or asks for what can't be kept.
    """
    request = ENDPOINTS[endpoint].parse(body)
    if request.extras is not None and request.extras.detailed:
        name = "n" if request.extras.n > 1 else "logprobs"
        raise _unsupported(name, f"A job's result is one text: leave '{name}' out.")
    if request.stream:
        advice = "leave 'stream' out, and follow the job's events instead."
        raise _unsupported("stream", f"A job is not streamed: {advice}")
    if request.inputs is not None and request.inputs.documents:
        advice = "leave 'return_documents' out, and go by each result's index."
        raise _unsupported("return_documents", f"A job's documents are not kept: {advice}")
    return request


def numbers_of(request: ParsedRequest) -> dict[str, Any]:
    """What a job's parameters say of how its kept answer is told; nothing of one that is text."""
    inputs = request.inputs
    if inputs is None:
        return {}
    return {_SHAPE: msgspec.to_builtins(Numbers(inputs.kind, inputs.packed, inputs.top))}


def kept_numbers(
    parameters: Mapping[str, Any], *, job: str, model: str, text: str, prompt_tokens: int
) -> bytes | None:
    """The answer to a request that embeds or ranks, as JSON; None if the job's is no such one.

    Args:
        parameters: of the job.
        job: its id in hex.
    """
    if _SHAPE not in parameters:
        return None
    shape = msgspec.convert(parameters[_SHAPE], Numbers)
    if shape.kind == "embed":
        return embeddings_object(text, shape.packed, model, prompt_tokens)
    return ranking_object(text, job=job, model=model, tokens=prompt_tokens, top=shape.top)


def _unsupported(param: str, message: str) -> Invalid:
    return Invalid(message, code="unsupported_parameter", param=param)
