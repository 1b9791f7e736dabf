"""Answers of ``/v1/responses`` that are read for reasoning and calls of functions."""

from typing import Final

import msgspec

from inference.gateway.parsing.deltas import Call, CallArguments, CallStart, Delta, Reasoning, Text
from inference.gateway.wire.common import Ending, Opening
from inference.gateway.wire.response import json_text
from inference.gateway.wire.response_events import (
    EventEncoder,
    ended_response,
    failed_events,
    message_item,
    message_part,
    response_status,
    started_response,
)
from portal.core.errors import PortalError

_encode: Final = msgspec.json.Encoder().encode


def whole_read_response(opening: Opening, text: str, ending: Ending) -> bytes:
    """A ``response`` object as JSON."""
    items: list[bytes] = []
    if ending.reasoning:
        items.append(_reasoning(_id(opening, "rs", 0), json_text(ending.reasoning)))
    if text or not ending.calls:
        status = response_status(ending)
        items.append(message_item(_id(opening, "msg", 0), json_text(text), status))
    items += [_call(call) for call in ending.calls]
    return ended_response(opening, b"[" + b",".join(items) + b"]", ending)


class _Item:
    """The item that is open."""

    __slots__ = ("call", "id", "kind", "pieces")

    def __init__(self, kind: type[Delta], item_id: bytes, call: CallStart | None = None) -> None:
        self.kind = kind
        self.id = item_id
        self.call = call
        self.pieces: list[str] = []


class ReadResponseEncoder(EventEncoder):
    """The numbered events of one response whose items begin and end as its parts come."""

    __slots__ = ("_done", "_item", "_opening")

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening
        self._item: _Item | None = None
        self._done: list[bytes] = []

    def first(self) -> bytes:
        begun = started_response(self._opening)
        return self._event(b"response.created", begun) + self._event(b"response.in_progress", begun)

    def content(self, text: str) -> bytes:
        return self.delta(Text(text))

    def delta(self, delta: Delta) -> bytes:
        """A part of the answer."""
        if isinstance(delta, CallStart):
            return self._close("completed") + self._open(
                _Item(CallStart, f"fc_{delta.id}".encode(), delta)
            )
        if isinstance(delta, CallArguments):
            return self._more(b"response.function_call_arguments.delta", delta.fragment)
        if isinstance(delta, Reasoning):
            return self._into(Reasoning, "rs") + self._more(
                b"response.reasoning_text.delta", delta.text
            )
        if isinstance(delta, Text):
            return self._into(Text, "msg") + self._more(b"response.output_text.delta", delta.text)
        # What looked like a call is shown as the text that it is.
        broken = self._close("incomplete")
        return broken + self.delta(Text(delta.raw))

    def end(self, ending: Ending) -> bytes:
        # An answer without any part is an empty text.
        begun = b"" if self._item or self._done else self._into(Text, "msg")
        closed = begun + self._close(response_status(ending))
        response = ended_response(self._opening, self._output(), ending)
        name = b"response." + response_status(ending).encode()
        return closed + self._event(name, b'"response":' + response)

    def error(self, error: PortalError, request_id: str) -> bytes:
        item = self._item
        if item is not None:
            self._done.append(self._whole(item, "incomplete"))
        return failed_events(self._event, self._opening, self._output(), error, request_id)

    def _output(self) -> bytes:
        return b"[" + b",".join(self._done) + b"]"

    def _into(self, kind: type[Delta], prefix: str) -> bytes:
        if self._item is not None and self._item.kind is kind:
            return b""
        closed = self._close("completed")
        return closed + self._open(_Item(kind, _id(self._opening, prefix, len(self._done))))

    def _open(self, item: _Item) -> bytes:
        self._item = item
        begun = self._event(
            b"response.output_item.added", self._place() + b'"item":' + self._begun(item)
        )
        if item.kind is not CallStart:
            part = b'"part":' + _part(item, b'""')
            begun += self._event(b"response.content_part.added", self._in_part(item) + part)
        return begun

    def _more(self, name: bytes, text: str) -> bytes:
        item = self._item
        assert item is not None, "what goes on has begun"
        item.pieces.append(text)
        return self._event(name, self._in_part(item) + _extra(item) + b'"delta":' + json_text(text))

    def _close(self, status: str) -> bytes:
        item = self._item
        if item is None:
            return b""
        whole = self._whole(item, status)
        text = json_text("".join(item.pieces))
        place = self._in_part(item)
        if item.call is not None:
            name = b'"name":' + _encode(item.call.name) + b',"arguments":'
            events = self._event(b"response.function_call_arguments.done", place + name + text)
        else:
            done = b"reasoning_text" if item.kind is Reasoning else b"output_text"
            members = place + _extra(item) + b'"text":' + text
            events = self._event(b"response.%b.done" % done, members)
            part = place + b'"part":' + _part(item, text)
            events += self._event(b"response.content_part.done", part)
        events += self._event(b"response.output_item.done", self._place() + b'"item":' + whole)
        self._item = None
        self._done.append(whole)
        return events

    def _place(self) -> bytes:
        return b'"output_index":%d,' % len(self._done)

    def _in_part(self, item: _Item) -> bytes:
        part = b"" if item.call is not None else b'"content_index":0,'
        return b'"item_id":"' + item.id + b'",' + self._place() + part

    def _begun(self, item: _Item) -> bytes:
        if item.call is not None:
            return _call(Call(item.call.id, item.call.name, ""), "in_progress")
        if item.kind is Reasoning:
            return _reasoning(item.id, None, "in_progress")
        return message_item(item.id, None, "in_progress")

    def _whole(self, item: _Item, status: str) -> bytes:
        text = "".join(item.pieces)
        if item.call is not None:
            return _call(Call(item.call.id, item.call.name, text), status)
        if item.kind is Reasoning:
            return _reasoning(item.id, json_text(text), status)
        return message_item(item.id, json_text(text), status)


def _id(opening: Opening, prefix: str, index: int) -> bytes:
    """An item's id; the first has the job's own."""
    return f"{prefix}_{opening.job}{f'_{index}' if index else ''}".encode()


def _extra(item: _Item) -> bytes:
    return b'"logprobs":[],' if item.kind is Text else b""


def _part(item: _Item, text: bytes) -> bytes:
    return _thought(text) if item.kind is Reasoning else message_part(text)


def _thought(text: bytes) -> bytes:
    return b'{"type":"reasoning_text","text":' + text + b"}"


def _reasoning(item_id: bytes, text: bytes | None, status: str = "completed") -> bytes:
    """What the model thought; its content is empty until there is a text, which comes as JSON."""
    return b'{"type":"reasoning","id":"%b","status":"%b","summary":[],"content":[%b]}' % (
        item_id,
        status.encode(),
        b"" if text is None else _thought(text),
    )


def _call(call: Call, status: str = "completed") -> bytes:
    return (
        _encode({"type": "function_call", "id": f"fc_{call.id}", "call_id": call.id})[:-1]
        + b',"status":"%b","name":' % status.encode()
        + _encode(call.name)
        + b',"arguments":'
        + json_text(call.arguments)
        + b"}"
    )
