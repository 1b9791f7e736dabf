"""From the inputs of a call that embeds or ranks to what it will run, and what it needs."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from msgspec.structs import replace

from inference.engines.base import Embedding, Message
from inference.gateway.admission import Ask
from inference.gateway.calls import Generation
from inference.gateway.catalogue import Served
from inference.gateway.wire import errors
from inference.gateway.wire.checks import invalid
from inference.gateway.wire.common import Inputs, ParsedRequest
from inference.inputs import InputEncoder
from inference.payloads import Extras, Prompt
from portal.core.errors import Invalid
from portal.core.redaction import mask

MOST_TOKENS: Final = 300_000
"""Of all inputs of a request together, as OpenAI has it."""

# More than this is counted on a thread, so that it holds up nobody else.
_INLINE_CHARS: Final = 2_000

_TASKS: Final = {"embed": ("embed",), "rank": ("embed", "rerank")}


async def prepare_inputs(
    request: ParsedRequest, inputs: Inputs, served: Served, patience: float
) -> tuple[Generation, Ask]:
    """As ``prepared_inputs``; many inputs do not hold up the event loop."""
    if inputs.ids or sum(len(m.content) for m in request.messages) > _INLINE_CHARS:
        return await asyncio.to_thread(prepared_inputs, request, inputs, served, patience)
    return prepared_inputs(request, inputs, served, patience)


def prepared_inputs(
    request: ParsedRequest, inputs: Inputs, served: Served, patience: float, *, priority: int = 0
) -> tuple[Generation, Ask]:
    """What a request will run on a deployment, and what it needs: prompt tokens alone.

    Raises:
        Invalid: the model does something else, or can't be asked for this.
    """
    encoder = served.encoder
    if not isinstance(encoder, InputEncoder) or served.task not in _TASKS[inputs.kind]:
        raise errors.wrong_task(served.model_name, served.task)
    dimensions = _dimensions(inputs, encoder)
    messages, tokens = _counted(request, inputs, served, encoder)
    embedding = Embedding(inputs.kind, tokens, dimensions)
    generation = Generation(
        served,
        Prompt((), messages, extras=Extras(embedding=embedding)),
        0,
        stream=False,
        parameters=_parameters(request, inputs),
    )
    ask = Ask(
        served.model_id,
        served.model_name,
        served.deployment_id,
        sum(tokens),
        0,
        served.prompt_price,
        served.completion_price,
        patience,
        priority,
    )
    return generation, ask


def _counted(
    request: ParsedRequest, inputs: Inputs, served: Served, encoder: InputEncoder
) -> tuple[tuple[Message, ...], tuple[int, ...]]:
    """The inputs as text, and how many tokens are read for each."""
    messages = tuple(_texts(request, inputs, encoder))
    query = messages[0].content if inputs.kind == "rank" and encoder.pairs else ""
    tokens: list[int] = []
    total = 0
    for place, message in enumerate(messages):
        if query and place == 0:
            # It is read with each document, and counted there.
            tokens.append(0)
            continue
        where = inputs.places[place]
        most = served.max_chars
        if len(message.content) + len(query) > most:
            # At least this many tokens are needed.
            raise _too_long(where, served, 1 + len(message.content) // encoder.chars_a_token)
        found = encoder.count(message.content, message.role, query)
        if found > served.context_length:
            raise _too_long(where, served, found)
        total += found
        if total > MOST_TOKENS:
            reason = f"all of it has more than {MOST_TOKENS} tokens, which is the most of a request"
            raise invalid(request.param, reason, "max_tokens_per_request")
        tokens.append(found)
    return messages, tuple(tokens)


def _texts(request: ParsedRequest, inputs: Inputs, encoder: InputEncoder) -> Iterator[Message]:
    if not inputs.ids:
        yield from request.messages
        return
    for place, (message, ids) in enumerate(zip(request.messages, inputs.ids, strict=True)):
        try:
            text = encoder.text_of(ids)
        except IndexError:
            reason = "not all of these are ids of text in the model's own vocabulary; send text"
            raise invalid(inputs.places[place], reason) from None
        if "\0" in text or not text:
            raise invalid(inputs.places[place], "these token ids stand for no text")
        yield replace(message, content=text)


def _too_long(where: str, served: Served, tokens: int) -> Invalid:
    return errors.context_length_exceeded(
        context=served.context_length,
        prompt_tokens=max(tokens, served.context_length + 1),
        max_tokens=None,
        param=where,
    )


def _dimensions(inputs: Inputs, encoder: InputEncoder) -> int:
    """The length of vectors to ask the engine for; 0 for the model's own."""
    wanted, facts = inputs.dimensions, encoder.facts
    if wanted is None or wanted == facts.dimensions:
        return 0
    if wanted in facts.shorter:
        return wanted
    known = sorted({facts.dimensions, *facts.shorter} - {0})
    remedy = f"send {' or '.join(map(str, known))}, or leave it out" if known else "leave it out"
    raise Invalid(
        f"This model's vectors can't be given {wanted} dimensions: {remedy}.",
        code="unsupported_value",
        param="dimensions",
    )


def _parameters(request: ParsedRequest, inputs: Inputs) -> dict[str, Any]:
    """What a job keeps of a request in clear: numbers, and the id of the caller's own user."""
    parameters: dict[str, Any] = {"max_tokens": 0, "inputs": len(request.messages)}
    if inputs.dimensions is not None:
        parameters["dimensions"] = inputs.dimensions
    if request.user is not None:
        # The caller's own words, kept in clear.
        parameters["user"] = mask(request.user)
    return parameters
