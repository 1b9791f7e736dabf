"""OpenAI's completion APIs as servers of several families speak them.

Sources: vLLM ``vllm/entrypoints/openai/protocol.py``, SGLang
``sglang/srt/entrypoints/openai/protocol.py``, llama.cpp ``tools/server/README.md``, TGI
``router/src/chat.rs``.
"""

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from inference.engines.base import (
    Calls,
    GenerationRequest,
    Likely,
    Sampling,
    StopReason,
    Structure,
    TokenLogprob,
)
from inference.engines.remote import Chunk
from inference.engines.remote.faults import failed, of_error, refused
from inference.engines.structural_tags import structural_tag

_ANY_OBJECT = {"type": "object"}
_REASONS: dict[str, StopReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "content_filter": "stop",
    "length": "length",
}


def body_of(
    request: GenerationRequest, *, family: str, chat: bool, model: str, share_cache: bool
) -> dict[str, Any]:
    """The body of a streamed completion.

    Raises:
        UpstreamFault: the family can't be asked for what the request asks.
    """
    sampling = request.sampling
    greedy = sampling.temperature == 0 or sampling.top_p == 0
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens,
        "temperature": 0 if greedy else sampling.temperature,
    }
    # TGI refuses a top_p of 1, which changes nothing.
    if not greedy and sampling.top_p < 1:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    body |= _prompt(request, chat=chat) | _logprobs(sampling.logprobs, chat=chat)
    calls = None if sampling.structure is None else sampling.structure.calls
    if calls is not None:
        body |= _held(calls, family=family, chat=chat)
        request = replace(request, sampling=replace(sampling, structure=None))
    return body | _FAMILIES[family](request, chat, share_cache)


def _prompt(request: GenerationRequest, *, chat: bool) -> dict[str, Any]:
    if not chat:
        return {"prompt": list(request.prompt_ids)}
    if any(not message.role for message in request.messages):
        raise refused("This deployment's server takes chats alone, and no bare prompt.")
    body: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in request.messages]
    }
    if request.tools:
        body["tools"] = msgspec.json.decode(request.tools)
    return body


def _held(calls: Calls, *, family: str, chat: bool) -> dict[str, Any]:
    """What holds the answer to calls of tools."""
    if not chat:
        if family != "vllm":
            raise refused("This deployment's server is held to calls of tools in chats alone.")
        return {"response_format": structural_tag(calls)}
    if not calls.forced:
        raise refused("This deployment's server can't be held to strict tools in chats.")
    choice: Any = "required"
    if len(calls.tags) == 1:
        choice = {"type": "function", "function": {"name": calls.tags[0].name}}
    return {"tool_choice": choice} | ({"parallel_tool_calls": False} if calls.one else {})


def _logprobs(count: int | None, *, chat: bool) -> dict[str, Any]:
    if count is None:
        return {}
    return {"logprobs": True, "top_logprobs": count} if chat else {"logprobs": count}


# What each family takes beside that.


def _openai(request: GenerationRequest, chat: bool, share_cache: bool) -> dict[str, Any]:
    sampling = request.sampling
    _without(sampling, "top_k", "min_tokens")
    if sampling.structure is None:
        return {}
    if not chat:
        raise refused("This deployment's server takes a response format in chats alone.")
    return {"response_format": _response_format(sampling.structure)}


def _vllm(request: GenerationRequest, chat: bool, share_cache: bool) -> dict[str, Any]:
    sampling = request.sampling
    body = _bounds(sampling) | _counting() | {"cache_salt": _salt(request)}
    if sampling.structure is not None:
        body["response_format"] = _response_format(sampling.structure)
    return body


def _sglang(request: GenerationRequest, chat: bool, share_cache: bool) -> dict[str, Any]:
    sampling = request.sampling
    body = _bounds(sampling) | _counting() | {"extra_key": _salt(request), "rid": request.id}
    if sampling.structure is not None and chat:
        body["response_format"] = _response_format(sampling.structure)
    elif sampling.structure is not None:
        body["json_schema"] = sampling.structure.schema or msgspec.json.encode(_ANY_OBJECT).decode()
    return body


def _llamacpp(request: GenerationRequest, chat: bool, share_cache: bool) -> dict[str, Any]:
    sampling = request.sampling
    _without(sampling, "min_tokens")
    # Its own defaults would narrow what is drawn from.
    body: dict[str, Any] = {
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "top_p": 1.0 if sampling.top_p == 0 else sampling.top_p,
        "timings_per_token": True,
        "cache_prompt": share_cache,
    }
    if sampling.structure is not None:
        body["json_schema"] = _schema(sampling.structure)
    return body


def _tgi(request: GenerationRequest, chat: bool, share_cache: bool) -> dict[str, Any]:
    sampling = request.sampling
    _without(sampling, "top_k", "min_tokens")
    if sampling.structure is None:
        return {}
    return {"response_format": {"type": "json_object", "value": _schema(sampling.structure)}}


_FAMILIES: dict[str, Callable[[GenerationRequest, bool, bool], dict[str, Any]]] = {
    "openai": _openai,
    "vllm": _vllm,
    "sglang": _sglang,
    "llamacpp": _llamacpp,
    "tgi": _tgi,
}


def _without(sampling: Sampling, *names: str) -> None:
    """Refuse what a family would ignore in silence."""
    for name in names:
        if getattr(sampling, name):
            raise refused(f"This deployment's server has no parameter {name}.")


def _bounds(sampling: Sampling) -> dict[str, Any]:
    bounds = {"top_k": sampling.top_k, "min_tokens": sampling.min_tokens}
    return {name: value for name, value in bounds.items() if value}


def _counting() -> dict[str, Any]:
    return {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def _salt(request: GenerationRequest) -> str:
    """Only requests of the same scope use each other's cached prompts."""
    return request.cache_scope or secrets.token_hex(16)


def _schema(structure: Structure) -> Any:
    return msgspec.json.decode(structure.schema) if structure.schema else _ANY_OBJECT


def _response_format(structure: Structure) -> dict[str, Any]:
    if structure.kind == "json_object":
        return {"type": "json_object"}
    schema = {"name": "answer", "schema": _schema(structure), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


# What comes back.


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Top(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Entry(_Top):
    top_logprobs: list[_Top] | None = None


class _Logprobs(msgspec.Struct):
    """Of chats (``content``), and of completions (the parallel lists)."""

    content: list[_Entry] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    matched_stop: int | str | list[int] | None = None
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None


class _Timings(msgspec.Struct):
    predicted_n: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class Reader:
    """Reads one stream's events; OpenAI's parts of an answer become one text.

    Reasoning stands between ``<think>`` and ``</think>``, a call of a function as JSON between
    ``<tool_call>`` and ``</tool_call>``: as models write them, for servers that parse them.
    """

    def __init__(self) -> None:
        self._thinking = False
        self._call: int | None = None

    def read(self, data: str) -> Chunk:
        """The chunk in an event.

        Raises:
            UpstreamFault: an error, or no such event.
        """
        try:
            event = _decode(data)
        except msgspec.DecodeError:
            raise failed("The serving engine's stream is malformed.") from None
        if event.error:
            raise of_error(event.error)
        usage, choice = event.usage, event.choices[0] if event.choices else None
        total = usage.completion_tokens if usage is not None else None
        prompt_tokens = usage.prompt_tokens if usage is not None else None
        if choice is None:
            return Chunk(completion_tokens=total, prompt_tokens=prompt_tokens)
        if total is None and event.timings is not None:
            total = event.timings.predicted_n
        logprobs = _read_logprobs(choice.logprobs)
        ended = choice.finish_reason is not None
        return Chunk(
            text=self._text(choice, ended=ended),
            tokens=_count(choice, logprobs) if total is None else None,
            total=total,
            logprobs=logprobs,
            reason=_reason(choice.finish_reason),
            stop=_stop(choice),
            prompt_tokens=prompt_tokens,
            completion_tokens=total if ended else None,
        )

    def _text(self, choice: _Choice, *, ended: bool) -> str:
        if choice.delta is None:
            return choice.text or ""
        delta, parts = choice.delta, []
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            parts.append(thought if self._thinking else f"<think>{thought}")
            self._thinking = True
        if self._thinking and (delta.content or delta.tool_calls or ended):
            parts.append("</think>")
            self._thinking = False
        parts.append(delta.content or "")
        parts += [self._called(call) for call in delta.tool_calls or ()]
        if ended and self._call is not None:
            parts.append("}</tool_call>")
        return "".join(parts)

    def _called(self, call: _ToolCall) -> str:
        function, text = call.function or _Function(), ""
        if call.index != self._call:
            text = "}</tool_call>\n" if self._call is not None else ""
            name = msgspec.json.encode(function.name or "").decode()
            text += f'<tool_call>{{"name": {name}, "arguments": '
            self._call = call.index
        return text + (function.arguments or "")


def _count(choice: _Choice, logprobs: tuple[TokenLogprob, ...]) -> int | None:
    """How many tokens a chunk covers, where the server lists them."""
    if choice.token_ids is not None:
        return len(choice.token_ids)
    return len(logprobs) or None


def _reason(finish_reason: str | None) -> StopReason | None:
    if finish_reason is None:
        return None
    reason = _REASONS.get(finish_reason)
    if reason is None:
        raise failed("The serving engine aborted the request.")
    return reason


def _stop(choice: _Choice) -> str | None:
    found = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
    return found if isinstance(found, str) else None


def _read_logprobs(found: _Logprobs | None) -> tuple[TokenLogprob, ...]:
    if found is None:
        return ()
    if found.content is not None:
        return tuple(
            TokenLogprob(
                _bytes(e),
                e.logprob,
                tuple(Likely(_bytes(t), t.logprob) for t in e.top_logprobs or ()),
            )
            for e in found.content
        )
    tokens, own = found.tokens or [], found.token_logprobs or []
    tops = found.top_logprobs or [None] * len(tokens)
    if not len(tokens) == len(own) == len(tops):
        raise failed("The serving engine's log probabilities are malformed.")
    return tuple(
        TokenLogprob(token.encode(), logprob or 0.0, _ranked(top))
        for token, logprob, top in zip(tokens, own, tops, strict=True)
    )


def _ranked(top: dict[str, float] | None) -> tuple[Likely, ...]:
    ranked = sorted((top or {}).items(), key=lambda item: -item[1])
    return tuple(Likely(token.encode(), logprob) for token, logprob in ranked)


def _bytes(entry: _Top) -> bytes:
    try:
        return bytes(entry.bytes) if entry.bytes is not None else entry.token.encode()
    except ValueError:
        return entry.token.encode()
