"""Answers of ``/v1``: the completion object, the chunks of a stream, the list of models."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from inference.gateway.wire import errors
from inference.gateway.wire.common import Ending, FinishReason, Usage
from portal.core.errors import PortalError

DONE: Final = b"data: [DONE]\n\n"

_encode: Final = msgspec.json.Encoder().encode

# JSON lets these stand, but many clients' line readers take them for the end of a line.
_LINE_ENDS: Final = (
    (b"\xc2\x85", b"\\u0085"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as ``/v1/models`` shows it; ``created`` in Unix seconds."""

    id: str
    created: int
    owned_by: str


def completion(
    *,
    completion_id: str,
    created: int,
    model: str,
    text: str,
    finish_reason: FinishReason,
    usage: Usage,
    system_fingerprint: str | None = None,
    message: bytes | None = None,
) -> bytes:
    """A ``chat.completion`` object as JSON; ``created`` in Unix seconds.

    Args:
        message: the message as JSON, where it is more than ``text``.
    """
    return b"".join(
        (
            head(completion_id, "chat.completion", created, model, system_fingerprint),
            b'[{"index":0,"message":',
            message or plain_message(text),
            b',"logprobs":null,"finish_reason":',
            _encode(finish_reason),
            b'}],"usage":',
            usage_json(usage),
            b"}",
        )
    )


def plain_message(text: str) -> bytes:
    """The assistant's message that is no more than ``text``, as JSON."""
    return (
        b'{"role":"assistant","content":' + json_text(text) + b',"refusal":null,"annotations":[]}'
    )


class ChunkEncoder:
    """The server-sent events of one stream; everything but the text is encoded once.

    The order of a stream: `first`, any number of `content`, `final`, `usage` if the caller asked
    for it, `DONE`.

    Args:
        include_usage: every chunk but the last then carries ``usage: null``, as OpenAI has it.
    """

    __slots__ = ("_before", "_content", "_head", "_include_usage", "_tail")

    def __init__(
        self,
        *,
        completion_id: str,
        created: int,
        model: str,
        include_usage: bool = False,
        system_fingerprint: str | None = None,
    ) -> None:
        self._include_usage = include_usage
        self._head = b"data: " + head(
            completion_id, "chat.completion.chunk", created, model, system_fingerprint
        )
        self._before = self._head + b'[{"index":0,"delta":'
        self._content = self._before + b'{"content":'
        self._tail = (b'],"usage":null}' if include_usage else b"]}") + b"\n\n"

    def first(self) -> bytes:
        """The chunk that opens the answer: the role, no text yet."""
        delta = b'{"role":"assistant","content":"","refusal":null}'
        return self._before + delta + b',"logprobs":null,"finish_reason":null}' + self._tail

    def content(self, text: str) -> bytes:
        """A piece of the answer."""
        return (
            self._content
            + json_text(text)
            + b'},"logprobs":null,"finish_reason":null}'
            + self._tail
        )

    def final(self, finish_reason: FinishReason) -> bytes:
        """The chunk that says why the answer ended."""
        reason = _encode(finish_reason)
        return self._before + b'{},"logprobs":null,"finish_reason":' + reason + b"}" + self._tail

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices that carries the tokens used."""
        return self._head + b'[],"usage":' + usage_json(usage) + b"}\n\n"

    def end(self, ending: Ending) -> bytes:
        """All that closes the stream."""
        final = self.final(ending.reason)
        return final + self.usage(ending.usage) + DONE if self._include_usage else final + DONE

    def error(self, error: PortalError, request_id: str) -> bytes:
        """What closes a stream that has begun and failed."""
        return errors.error_event(error, request_id)


def models_list(models: Iterable[ModelInfo]) -> bytes:
    """The list object of ``GET /v1/models`` as JSON."""
    return _encode({"object": "list", "data": [_model(model) for model in models]})


def model_object(model: ModelInfo) -> bytes:
    """The object of ``GET /v1/models/{id}`` as JSON."""
    return _encode(_model(model))


def _model(model: ModelInfo) -> dict[str, str | int]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
    }


def head(completion_id: str, kind: str, created: int, model: str, fingerprint: str | None) -> bytes:
    """The object up to the value of ``choices``."""
    fields = {
        "id": completion_id,
        "object": kind,
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
    }
    return _encode(fields)[:-1] + b',"choices":'


def usage_json(usage: Usage) -> bytes:
    told: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.reasoning_tokens is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return _encode(told)


def json_text(text: str) -> bytes:
    """``text`` as a JSON string on one line, for any reader's idea of a line."""
    if text.isascii():
        return _encode(text)
    try:
        encoded = _encode(text)
    except UnicodeEncodeError:
        # Half of a surrogate pair can't be sent; it is shown as what it is, unreadable.
        encoded = _encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return one_line(encoded)


def one_line(encoded: bytes) -> bytes:
    """JSON without a character that some reader takes for the end of a line."""
    for raw, escaped in _LINE_ENDS:
        if raw in encoded:
            encoded = encoded.replace(raw, escaped)
    return encoded
