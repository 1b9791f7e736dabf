"""Answers of ``/v1/messages`` that are read for thinking and calls of tools."""

from typing import Final

import msgspec

from inference.gateway.parsing.deltas import (
    Call,
    CallArguments,
    CallBroken,
    CallStart,
    Delta,
    Reasoning,
    Text,
)
from inference.gateway.wire.common import Ending, Opening
from inference.gateway.wire.message_events import MessageEncoder, message_ending, message_object
from inference.gateway.wire.response import json_text, one_line

_encode: Final = msgspec.json.Encoder().encode

_TEXT: Final = b'{"type":"text","text":""}'
# What was thought here is signed by nobody, and dropped when it comes back.
_THINKING: Final = b'{"type":"thinking","thinking":"","signature":""}'
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'


def whole_read_message(opening: Opening, text: str, ending: Ending) -> bytes:
    """A ``message`` object as JSON."""
    blocks: list[bytes] = []
    if ending.reasoning and opening.request.reasoning:
        thinking = json_text(ending.reasoning)
        blocks.append(b'{"type":"thinking","thinking":' + thinking + b',"signature":""}')
    if text or not ending.calls:
        blocks.append(b'{"type":"text","text":' + json_text(text) + b"}")
    blocks += [_tool_use(call) for call in ending.calls]
    return message_object(opening, b"[" + b",".join(blocks) + b"]", ending)


class ReadMessageEncoder(MessageEncoder):
    """The events of one message whose blocks begin and end as its parts come."""

    __slots__ = ("_index", "_open")

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._index = -1
        self._open: type[Delta] | None = None

    def first(self) -> bytes:
        return self.started() + _PING

    def delta(self, delta: Delta) -> bytes:
        """A part of the answer."""
        if isinstance(delta, Text):
            return self._into(Text, _TEXT) + self._text(delta.text)
        if isinstance(delta, Reasoning):
            if not self._opening.request.reasoning:
                return b""
            thinking = b'"thinking_delta","thinking":' + json_text(delta.text)
            return self._into(Reasoning, _THINKING) + self._delta(thinking)
        if isinstance(delta, CallStart):
            head = _encode({"type": "tool_use", "id": delta.id, "name": delta.name})
            return self.closed() + self._begin(CallStart, head[:-1] + b',"input":{}}')
        if isinstance(delta, CallArguments):
            return self._delta(b'"input_json_delta","partial_json":' + json_text(delta.fragment))
        return self._broken(delta)

    def end(self, ending: Ending) -> bytes:
        # An answer without any part is an empty text.
        begun = b"" if self._index >= 0 else self._begin(Text, _TEXT)
        return begun + self.closed() + message_ending(ending)

    def closed(self) -> bytes:
        """The end of the block that is open, if one is."""
        if self._open is None:
            return b""
        self._open = None
        stop = b'{"type":"content_block_stop","index":%d}' % self._index
        return b"event: content_block_stop\ndata: " + stop + b"\n\n"

    def _broken(self, delta: CallBroken) -> bytes:
        return self.closed() + self._begin(Text, _TEXT) + self._text(delta.raw)

    def _into(self, kind: type[Delta], block: bytes) -> bytes:
        return b"" if self._open is kind else self.closed() + self._begin(kind, block)

    def _begin(self, kind: type[Delta], block: bytes) -> bytes:
        self._open = kind
        self._index += 1
        start = b'{"type":"content_block_start","index":%d,"content_block":' % self._index
        return b"event: content_block_start\ndata: " + start + one_line(block) + b"}\n\n"

    def _text(self, text: str) -> bytes:
        return self._delta(b'"text_delta","text":' + json_text(text))

    def _delta(self, members: bytes) -> bytes:
        head = b'{"type":"content_block_delta","index":%d,"delta":{"type":' % self._index
        return b"event: content_block_delta\ndata: " + head + members + b"}}\n\n"


def _tool_use(call: Call) -> bytes:
    head = _encode({"type": "tool_use", "id": call.id, "name": call.name})
    return head[:-1] + b',"input":' + one_line(call.arguments.encode()) + b"}"
