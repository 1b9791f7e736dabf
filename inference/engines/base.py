"""What an engine is: the protocol between a worker and whatever generates tokens.

A worker submits requests and receives events. Every submitted request ends with exactly one
terminal event (``Done`` or ``Failed``), whatever happens to it, to its neighbours or to the engine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from portal.core.errors import Conflict, Unavailable

EngineOptions = Mapping[str, Any]
"""Options of a deployment as they come from its JSON; each engine validates its own."""

StopReason = Literal["stop", "length", "cancelled"]


class ToolCall(msgspec.Struct, frozen=True, array_like=True):
    """A call that a past answer made; ``arguments`` is a JSON object as text."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation.

    Args:
        calls: what the assistant called; its content may then be empty.
        call_id: whose result the content is, in a turn with the role tool.
    """

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class CallTag(msgspec.Struct, frozen=True, array_like=True):
    """A call of one tool: what stands around its arguments, and their JSON schema as text."""

    name: str
    begin: str
    schema: str
    end: str


class Calls(msgspec.Struct, frozen=True):
    """How an answer calls tools: an opener, calls, and what closes them.

    Args:
        tags: what may be called.
        opener: the mark at which calls begin; empty where an answer that begins with a brace is
            a call.
        first: what stands between the opener and the first call.
        between: what stands between a call and the next.
        after: what stands behind the last.
        forced: the answer is calls and nothing else; otherwise it may be text, with calls or not.
        one: a call is the only one.
    """

    tags: tuple[CallTag, ...]
    opener: str = ""
    first: str = ""
    between: str = ""
    after: str = ""
    forced: bool = True
    one: bool = False


class Structure(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an answer must look like; tokens that would break it are never chosen.

    Args:
        kind: any JSON object, JSON that a schema describes, or calls of tools.
        schema: the JSON schema as text; empty for any object.
        calls: how tools are called, where the kind says so.
    """

    kind: Literal["json_object", "json_schema", "calls"]
    schema: str = ""
    calls: Calls | None = None


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are chosen and when generation ends.

    Args:
        max_tokens: most completion tokens, at least 1.
        temperature: 0 takes the most likely token each time.
        top_p: nucleus sampling, in (0, 1]; 0 is taken as greedy.
        stop: generation ends before the first of these strings; none is part of the answer.
        seed: makes sampling repeatable on one machine and one batch; None draws a fresh one.
        top_k: only so many of the likeliest tokens are drawn from; 0 sets no bound.
        min_tokens: the model's own end of text is not taken before so many tokens.
        logprobs: how many of the likeliest tokens are told at each place, beside the chosen one,
            from 0 to 20; None tells nothing.
        structure: what the answer must look like; None leaves it free.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_k: int = 0
    min_tokens: int = 0
    logprobs: int | None = None
    structure: Structure | None = None


class Embedding(msgspec.Struct, frozen=True):
    """What is asked of the messages of a request that generates nothing.

    A message's role says what its text is: a ``query`` that looks for documents, or a
    ``document`` that is found.

    Args:
        kind: ``embed`` asks for a vector of each message, in order; ``rank`` for how well each
            message behind the first answers the first, which is a query.
        tokens: how many prompt tokens are read for each message, as they are charged; a query
            that is read together with each document has none of its own.
        dimensions: length of the vectors; 0 for the model's own.
    """

    kind: Literal["embed", "rank"]
    tokens: tuple[int, ...]
    dimensions: int = 0


class GenerationRequest(msgspec.Struct, frozen=True):
    """One generation, or one embedding.

    Args:
        id: unique among the engine's unfinished requests.
        prompt_ids: the rendered prompt in the model's own token ids.
        messages: the same prompt as messages, for engines that render it themselves; a prompt that
            no template touches is one message without a role.
        sampling: how to generate.
        cache_scope: what was computed of a prompt may be used again only by requests of the same
            scope, which is a tenant: across tenants its speed would tell what another asked. Empty
            shares nothing.
        tools: the functions that the model may call, as OpenAI's JSON array, for engines that
            render the prompt themselves; empty for none.
        embedding: nothing is generated: the messages are embedded or ranked, ``prompt_ids`` is
            empty, and the answer is one ``Token`` event of no tokens whose text ``pack_vectors``
            made: a vector a message, or one vector of all scores.
    """

    id: str
    prompt_ids: Sequence[int]
    messages: tuple[Message, ...]
    sampling: Sampling
    cache_scope: str = ""
    tools: str = ""
    embedding: Embedding | None = None


class Likely(msgspec.Struct, frozen=True, array_like=True):
    """A token that could stand at a place, and the natural logarithm of its probability."""

    token: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """The token that was chosen at a place, and the likeliest there, the likeliest first."""

    token: bytes
    logprob: float
    top: tuple[Likely, ...] = ()


class Token(msgspec.Struct, frozen=True, tag="token", array_like=True):
    """New text of a request.

    ``tokens`` counts the completion tokens that this text newly covers. A token whose text is
    still held back (an unfinished UTF-8 sequence, the possible beginning of a stop string, a
    special token) is counted with the next text, at the latest in a closing event whose text may
    be empty. The sum over a request equals its terminal event's ``completion_tokens``.
    ``logprobs`` has one entry for each of these tokens where the request asked for them.
    """

    request_id: str
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


class Done(msgspec.Struct, frozen=True, tag="done", array_like=True):
    """The request ended as asked. Tokens of a stop string or an end-of-text token are counted.

    ``stop`` is the place among the request's stop strings of the one that ended it, or -1.
    """

    request_id: str
    reason: StopReason
    prompt_tokens: int
    completion_tokens: int
    stop: int = -1


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """The request could not be served; ``code`` is stable, ``message`` is for people.

    Codes: ``context_length_exceeded``, ``invalid_prompt``, ``request_refused`` (the engine's own
    words are in the message), ``engine_failed``.
    """

    request_id: str
    code: str
    message: str


Event = Token | Done | Failed
Emit = Callable[[Sequence[Event]], None]


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of an engine.

    Args:
        slots: requests that can run at once.
        running: requests that run now.
        waiting: requests accepted and not yet running.
        generated_tokens: completion tokens since loading.
        failure: why the engine is dead, or None while it serves.
        memory_bytes: what weights and cache take on the engine's device; 0 where it can't tell.
        cache_tokens: tokens that the key-value cache has room for; 0 where it can't tell.
        cached_tokens: tokens of it that are taken now.
    """

    slots: int
    running: int
    waiting: int
    generated_tokens: int
    failure: str | None = None
    memory_bytes: int = 0
    cache_tokens: int = 0
    cached_tokens: int = 0


class EngineBroken(Unavailable):
    """The engine failed, and serves nothing until a new one is loaded."""

    code = "engine_failed"


class EngineClosed(Unavailable):
    """The engine is not loaded, is draining or is closed."""

    code = "engine_closed"


class DuplicateRequest(Conflict):
    """An unfinished request already has this id."""

    code = "duplicate_request"


class Engine(Protocol):
    """Generates tokens for many requests at once. All methods are thread-safe.

    An engine is constructed with ``emit``, which it calls from one thread of its own, once a step,
    with all events of that step, and once when it fails, even if nothing ran. ``emit`` must be
    quick and must not raise: an engine whose events cannot be delivered stops.
    """

    def load(self) -> None:
        """Load the weights and generate one token; blocks, and afterwards the engine is ready.

        Raises:
            PortalError: the artefact or the options cannot be used.
        """
        ...

    def submit(self, request: GenerationRequest) -> None:
        """Accept a request; its events follow through ``emit``. Never blocks on generation.

        Raises:
            EngineClosed: not loaded, draining or closed.
            EngineBroken: the engine has failed.
            DuplicateRequest: the id belongs to an unfinished request.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """End a request; ``Done('cancelled')`` follows within one step. Unknown ids: nothing."""
        ...

    def drain(self, timeout: float | None = None) -> bool:
        """Accept no more requests and wait, at most ``timeout`` seconds, until none is left.

        Returns:
            Whether the engine is idle.
        """
        ...

    def stats(self) -> EngineStats:
        """A snapshot for metrics and for deciding how much work to claim."""
        ...

    def close(self) -> None:
        """Cancel what still runs, release the weights. A second call does nothing."""
        ...
