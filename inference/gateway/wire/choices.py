"""Answers that are more than one text: choices by their index, and log probabilities."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from inference.engines.base import Likely, TokenLogprob
from inference.gateway.parsing.deltas import Delta
from inference.gateway.wire import errors
from inference.gateway.wire.common import Ending, Opening, WholeChoice
from inference.gateway.wire.reading import delta_json, whole_message
from inference.gateway.wire.response import DONE, head, json_text, one_line, usage_json
from inference.returns import Part
from portal.core.errors import PortalError

_encode: Final = msgspec.json.Encoder().encode

Choice = Callable[[int, bytes | None, Sequence[TokenLogprob], int, str | None], bytes]
"""One choice of a chunk as JSON.

Of its index, its text as JSON (None for the opening of a stream, where there is no text yet), its
log probabilities, how many characters of it came before, and its finish reason.
"""


def chat_opening(opening: Opening, *, stream: bool) -> bytes:
    """A chat completion, or a chunk of one, up to its choices."""
    kind = "chat.completion.chunk" if stream else "chat.completion"
    return head(f"chatcmpl-{opening.job}", kind, opening.created, opening.request.model, None)


def chat_choice(index: int, choice: WholeChoice) -> bytes:
    """A choice of a whole chat completion."""
    return b'{"index":%d,"message":%b,"logprobs":%b,"finish_reason":%b}' % (
        index,
        whole_message(choice.text, choice.reasoning, choice.calls),
        _content(choice.logprobs),
        _encode(choice.reason),
    )


def chat_delta(
    index: int, text: bytes | None, told: Sequence[TokenLogprob], before: int, reason: str | None
) -> bytes:
    """A choice of a chunk of a chat completion."""
    if text is None:
        delta = b"{}" if reason else b'{"role":"assistant","content":"","refusal":null}'
    else:
        delta = b'{"content":%b}' % text
    return _chat_delta(index, delta, told, reason)


def _chat_delta(
    index: int, delta: bytes, told: Sequence[TokenLogprob], reason: str | None = None
) -> bytes:
    return b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}' % (
        index,
        delta,
        _content(told),
        _encode(reason),
    )


def whole_text_choice(index: int, choice: WholeChoice) -> bytes:
    """A choice of a whole answer of ``/v1/completions``."""
    return text_choice(index, json_text(choice.text), choice.logprobs, 0, choice.reason)


def text_choice(
    index: int, text: bytes | None, told: Sequence[TokenLogprob], before: int, reason: str | None
) -> bytes:
    """A choice of a chunk of ``/v1/completions``."""
    return b'{"text":%b,"index":%d,"logprobs":%b,"finish_reason":%b}' % (
        text or b'""',
        index,
        _legacy(told, before),
        _encode(reason),
    )


def whole_choices(
    start: bytes, choice: Callable[[int, WholeChoice], bytes], ending: Ending
) -> bytes:
    """An answer in one piece; ``start`` is the object up to its choices."""
    choices = b",".join(choice(index, answer) for index, answer in enumerate(ending.choices))
    return b"".join((start, b"[", choices, b'],"usage":', usage_json(ending.usage), b"}"))


class ChoicesEncoder:
    """The server-sent events of an answer of several choices, or with log probabilities.

    Args:
        start: a chunk up to its choices.
        choice: writes one of them.
        opens: whether each choice begins with a chunk of its own.

    Attributes:
        open: the choices that have not ended.
    """

    def __init__(self, start: bytes, choice: Choice, opening: Opening, *, opens: bool) -> None:
        extras = opening.request.extras
        n = 1 if extras is None else extras.n
        self._choice = choice
        self._opens = opens
        self._include_usage = opening.request.include_usage
        self._head = b"data: " + start
        self._tail = (b'],"usage":null}' if self._include_usage else b"]}") + b"\n\n"
        self._sizes = [0] * n
        self.open = set(range(n))

    def first(self) -> bytes:
        """What opens the stream: the role of each choice, where the API tells it."""
        if not self._opens:
            return b""
        return b"".join(self._chunk(index, None) for index in sorted(self.open))

    def content(self, text: str) -> bytes:
        """A piece of the only choice."""
        return self.part(Part(b"", 0, 0, 0, text))

    def part(self, part: Part) -> bytes:
        """A piece of a choice, or its end."""
        if part.reason:
            return self.ended(part.choice, part.reason)
        before = self._sizes[part.choice]
        self._sizes[part.choice] += len(part.text)
        return self._chunk(part.choice, json_text(part.text), part.logprobs, before)

    def ended(self, index: int, reason: str) -> bytes:
        """The end of a choice."""
        self.open.discard(index)
        return self._chunk(index, None, reason=reason)

    def end(self, ending: Ending) -> bytes:
        """The end of each choice that has none yet, the usage, the stream's own end."""
        ends = [self.ended(index, ending.reason) for index in sorted(self.open)]
        usage = b""
        if self._include_usage:
            usage = self._head + b'[],"usage":' + usage_json(ending.usage) + b"}\n\n"
        return b"".join((*ends, usage, DONE))

    def error(self, error: PortalError, request_id: str) -> bytes:
        """What closes a stream that has begun and failed."""
        return errors.error_event(error, request_id)

    def _chunk(
        self,
        index: int,
        text: bytes | None,
        told: Sequence[TokenLogprob] = (),
        before: int = 0,
        reason: str | None = None,
    ) -> bytes:
        return self._of(self._choice(index, text, told, before, reason))

    def _of(self, choice: bytes) -> bytes:
        return self._head + b"[" + choice + self._tail


class ChatChoicesEncoder(ChoicesEncoder):
    """The same of a chat completion, whose choices may be read for reasoning and calls."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(chat_opening(opening, stream=True), chat_delta, opening, opens=True)

    def deltas(self, index: int, deltas: Sequence[Delta], told: Sequence[TokenLogprob]) -> bytes:
        """Parts of a choice that is read; the log probabilities come with the first."""
        parts = [delta_json(delta) for delta in deltas]
        if told and not parts:
            parts = [b"{}"]
        return b"".join(
            self._of(_chat_delta(index, part, () if place else told))
            for place, part in enumerate(parts)
        )


def _content(told: Sequence[TokenLogprob]) -> bytes:
    if not told:
        return b"null"
    entries = [_entry(one) | {"top_logprobs": [_entry(top) for top in one.top]} for one in told]
    return one_line(_encode({"content": entries, "refusal": None}))


def _entry(one: TokenLogprob | Likely) -> dict[str, Any]:
    return {"token": _text(one.token), "logprob": one.logprob, "bytes": list(one.token)}


def _legacy(told: Sequence[TokenLogprob], before: int) -> bytes:
    if not told:
        return b"null"
    offsets = []
    for one in told:
        offsets.append(before)
        before += len(_text(one.token))
    tops = [{_text(top.token): top.logprob for top in one.top} for one in told]
    return one_line(
        _encode(
            {
                "tokens": [_text(one.token) for one in told],
                "token_logprobs": [one.logprob for one in told],
                "top_logprobs": tops if any(tops) else None,
                "text_offset": offsets,
            }
        )
    )


def _text(token: bytes) -> str:
    """A token alone may be half of a character."""
    return token.decode(errors="replace")
