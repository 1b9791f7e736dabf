"""The dialect of ``/v1/completions``: one text, continued as it stands."""

import operator
from typing import ClassVar, Final

import msgspec

from inference.engines.base import Message
from inference.gateway.wire import checks, errors
from inference.gateway.wire.checks import DEFAULT_LIMITS, bounded, invalid, unsupported
from inference.gateway.wire.choices import (
    ChoicesEncoder,
    text_choice,
    whole_choices,
    whole_text_choice,
)
from inference.gateway.wire.common import (
    Ending,
    FinishReason,
    Opening,
    ParsedRequest,
    StreamEncoder,
    Usage,
)
from inference.gateway.wire.diagnose import DecodeFault, refusal_of
from inference.gateway.wire.extras import extras_of
from inference.gateway.wire.response import DONE, head, json_text, usage_json
from inference.gateway.wire.schema import ABSENT, StreamOptions, Unsupported
from inference.gateway.wire.style import OPENAI, Style
from inference.payloads import Extras
from portal.core.errors import Invalid, PortalError

_encode: Final = msgspec.json.Encoder().encode


class IncomingCompletion(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/completions``."""

    model: str
    prompt: str | list[str]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    best_of: msgspec.Raw = ABSENT
    echo: msgspec.Raw = ABSENT
    frequency_penalty: msgspec.Raw = ABSENT
    logit_bias: msgspec.Raw = ABSENT
    logprobs: int | None = None
    n: int | None = None
    presence_penalty: msgspec.Raw = ABSENT
    suffix: msgspec.Raw = ABSENT
    # vLLM's, not OpenAI's.
    top_k: int | None = None
    min_tokens: int | None = None


UNSUPPORTED: Final = Unsupported(
    {
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
        "logit_bias": ({},),
        "presence_penalty": (0,),
        "frequency_penalty": (0,),
    }
)

_MAX_LOGPROBS: Final = 5
_of_completion: Final = operator.attrgetter("top_k", "min_tokens", "logprobs", "n")
_NO_EXTRAS: Final = (None,) * 4

_decoder: Final = msgspec.json.Decoder(IncomingCompletion)


class CompletionsDialect:
    """OpenAI's completions."""

    style: ClassVar[Style] = OPENAI

    def parse(self, body: bytes) -> ParsedRequest:
        limits = DEFAULT_LIMITS
        try:
            incoming = _decoder.decode(body)
            checks.refuse_unsupported(UNSUPPORTED, incoming)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            raise _token_ids(fault) or refusal_of(body, fault, limits.depth) from None
        stream = incoming.stream is True
        return ParsedRequest(
            model=checks.checked_model(incoming.model, limits),
            messages=(Message("", _text(incoming.prompt)),),
            stream=stream,
            include_usage=checks.checked_options(incoming.stream_options, stream=stream),
            temperature=checks.checked_temperature(incoming.temperature),
            top_p=checks.checked_top_p(incoming.top_p),
            max_tokens=checks.checked_max_tokens("max_tokens", incoming.max_tokens),
            stop=checks.checked_stop(incoming.stop, limits),
            seed=checks.checked_seed(incoming.seed),
            user=checks.checked_label("user", incoming.user, limits),
            param="prompt",
            raw=True,
            extras=_extras(incoming),
        )

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        if opening.request.detailed:
            return whole_choices(_head(opening), whole_text_choice, ending)
        choice = _choice(text, ending.reason)
        return _head(opening) + b"[" + choice + b'],"usage":' + usage_json(ending.usage) + b"}"

    def stream(self, opening: Opening) -> StreamEncoder:
        if opening.request.detailed:
            return ChoicesEncoder(_head(opening), text_choice, opening, opens=False)
        return CompletionEncoder(opening)


class CompletionEncoder:
    """The server-sent events of one completion; see ``StreamEncoder``."""

    __slots__ = ("_head", "_include_usage", "_tail")

    def __init__(self, opening: Opening) -> None:
        self._include_usage = opening.request.include_usage
        self._head = b"data: " + _head(opening)
        self._tail = (b'],"usage":null}' if self._include_usage else b"]}") + b"\n\n"

    def first(self) -> bytes:
        return b""

    def content(self, text: str) -> bytes:
        return self._head + b"[" + _choice(text, None) + self._tail

    def end(self, ending: Ending) -> bytes:
        final = self._head + b"[" + _choice("", ending.reason) + self._tail
        return final + self._usage(ending.usage) + DONE

    def error(self, error: PortalError, request_id: str) -> bytes:
        return errors.error_event(error, request_id)

    def _usage(self, usage: Usage) -> bytes:
        if not self._include_usage:
            return b""
        return self._head + b'[],"usage":' + usage_json(usage) + b"}\n\n"


def _extras(incoming: IncomingCompletion) -> Extras | None:
    if _of_completion(incoming) == _NO_EXTRAS:
        return None
    logprobs = incoming.logprobs
    if logprobs is not None and not 0 <= logprobs <= _MAX_LOGPROBS:
        raise checks.out_of_range("logprobs", "integer", logprobs, 0, _MAX_LOGPROBS)
    return extras_of(
        top_k=incoming.top_k,
        min_tokens=incoming.min_tokens,
        max_tokens=incoming.max_tokens,
        logprobs=logprobs,
        n=incoming.n,
    )


def _text(prompt: str | list[str]) -> str:
    if not isinstance(prompt, str):
        if len(prompt) != 1:
            raise _not_one(prompt)
        prompt = prompt[0]
    if not prompt:
        raise invalid("prompt", "there is nothing to continue", "empty_string")
    return bounded("prompt", prompt, len(prompt))


def _not_one(prompts: list[str]) -> Invalid:
    if not prompts:
        return invalid("prompt", "a prompt is needed", "empty_array")
    return unsupported("prompt", "More than one prompt in a request")


def _token_ids(fault: DecodeFault) -> Invalid | None:
    """Token ids are known and not served: they could hold control tokens."""
    told = str(fault)
    ids = ("Expected `str`, got `int`", "Expected `str`, got `array`")
    if told.startswith(ids) and "`$.prompt[" in told:
        return unsupported("prompt", "A prompt of token ids")
    return None


def _choice(text: str, reason: FinishReason | None) -> bytes:
    return (
        b'{"text":'
        + json_text(text)
        + b',"index":0,"logprobs":null,"finish_reason":'
        + _encode(reason)
        + b"}"
    )


def _head(opening: Opening) -> bytes:
    model = opening.request.model
    return head(f"cmpl-{opening.job}", "text_completion", opening.created, model, None)
