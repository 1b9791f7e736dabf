"""What the APIs of ``/v1`` have in common: one request, one answer, and what a dialect does.

An endpoint that generates is a dialect and the common way: the dialect parses its body into a
``ParsedRequest``, and writes whole answers, streams and errors in its own shape.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from inference.engines.base import Message, TokenLogprob
from inference.gateway.parsing.deltas import Call, Delta
from inference.gateway.wire.style import Style
from inference.payloads import Extras
from portal.core.errors import PortalError

FinishReason = Literal["stop", "length", "tool_calls"]


class Inputs(msgspec.Struct, frozen=True):
    """What a request that generates nothing asks for beside its messages.

    Attributes:
        kind: see ``Embedding``.
        places: the parameter that holds each message, for refusals.
        ids: token ids by the place of the message whose text they are.
        dimensions: length of the vectors; None for the model's own.
        packed: vectors are told as base64, and not as numbers.
        top: how many documents are told of, the best first; None for all.
        documents: whether their texts are told with them.
    """

    kind: Literal["embed", "rank"]
    places: tuple[str, ...]
    ids: tuple[Sequence[int], ...] = ()
    dimensions: int | None = None
    packed: bool = False
    top: int | None = None
    documents: bool = False


class HeldTool(msgspec.Struct, frozen=True):
    """A tool to whose parameters calls are held.

    Attributes:
        schema: of its arguments, as JSON text.
        strict: the caller insists on it.
        param: where its parameters stand in the body.
    """

    name: str
    schema: str
    strict: bool
    param: str


class CallRule(msgspec.Struct, frozen=True):
    """What an answer that calls tools is held to; ``forced`` means that it must call one."""

    tools: tuple[HeldTool, ...]
    forced: bool


class ParsedRequest(msgspec.Struct, frozen=True):
    """What a caller asks of a model. None means that the caller left it to the deployment.

    Attributes:
        messages: roles are system, user, assistant or tool.
        param: the parameter that holds the prompt, for refusals.
        raw: ``messages`` is one text without a role, which no chat template touches.
        echo: what the answer repeats of the request: members of a JSON object, encoded.
        extras: what few callers ask for.
        inputs: the messages are embedded or ranked, their roles being query or document.
        one_call: at most one call of a tool is wanted.
        calls: what its calls are held to; None where the model is free.
        reasoning: what the model thinks before it answers is shown.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    stop: tuple[str, ...]
    seed: int | None
    user: str | None
    param: str = "messages"
    raw: bool = False
    echo: bytes = b""
    extras: Extras | None = None
    inputs: Inputs | None = None
    one_call: bool = False
    calls: CallRule | None = None
    reasoning: bool = True

    @property
    def detailed(self) -> bool:
        """Whether the answer is more than a text: several, or with log probabilities."""
        return self.extras is not None and self.extras.detailed


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one completion; ``reasoning_tokens`` are among the completion's, where counted."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int | None = None


class Opening(msgspec.Struct, frozen=True):
    """What is known of an answer before its first word.

    Attributes:
        job: the job's id in hex, of which the answer's own ids are made.
        created: Unix seconds.
    """

    job: str
    created: int
    prompt_tokens: int
    request: ParsedRequest


class WholeChoice(msgspec.Struct, frozen=True):
    """One choice of a detailed answer in one piece."""

    text: str
    reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()
    calls: tuple[Call, ...] = ()
    reasoning: str = ""


class Ending(msgspec.Struct, frozen=True):
    """How an answer ended; ``stop`` is the stop sequence that ended it, where that is known.

    ``calls`` and ``reasoning`` are what a whole answer has beside its text, and ``choices`` what a
    detailed one has in its place.
    """

    reason: FinishReason
    usage: Usage
    stop: str | None = None
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    choices: tuple[WholeChoice, ...] = ()


class StreamEncoder(Protocol):
    """The server-sent events of one stream, in order: `first`, any `content`, `end` or `error`."""

    def first(self) -> bytes:
        """What opens the stream; may be nothing."""
        ...

    def content(self, text: str) -> bytes:
        """A piece of the answer."""
        ...

    def end(self, ending: Ending) -> bytes:
        """All that closes an answer."""
        ...

    def error(self, error: PortalError, request_id: str) -> bytes:
        """What closes a stream that has begun and failed."""
        ...


class ReadEncoder(StreamEncoder, Protocol):
    """Events of an answer that is read for reasoning and calls."""

    def delta(self, delta: Delta) -> bytes:
        """A part of the answer, in the place of `content`; may be nothing."""
        ...


class Dialect(Protocol):
    """How one API asks and answers."""

    style: ClassVar[Style]

    def parse(self, body: bytes) -> ParsedRequest:
        """The request in ``body``.

        Raises:
            Invalid: with ``param`` and ``code`` as OpenAI names them.
        """
        ...

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        """The answer in one piece, as JSON."""
        ...

    def stream(self, opening: Opening) -> StreamEncoder:
        """What writes the answer as events."""
        ...


@runtime_checkable
class ReadDialect(Dialect, Protocol):
    """An API whose answers may have reasoning and calls; `Ending` brings those of a whole one."""

    def read_stream(self, opening: Opening) -> ReadEncoder:
        """What writes an answer that is read, as events."""
        ...
