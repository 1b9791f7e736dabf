"""What ``/v1/messages`` answers: the message object, and the events of its stream."""

from typing import Any, Final

import msgspec

from inference.gateway.wire.common import Ending, Opening, Usage
from inference.gateway.wire.message_style import ANTHROPIC
from inference.gateway.wire.response import json_text, one_line
from portal.core.errors import PortalError

_encode: Final = msgspec.json.Encoder().encode

_BEGUN: Final = (
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
)
_DELTA: Final = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":'
)
_BLOCK_STOP: Final = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
_MESSAGE_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def whole_message(opening: Opening, text: str, ending: Ending) -> bytes:
    """A ``message`` object as JSON."""
    content = b'[{"type":"text","text":' + json_text(text) + b"}]"
    return message_object(opening, content, ending)


def message_object(opening: Opening, content: bytes, ending: Ending) -> bytes:
    """A ``message`` object whose content comes as JSON."""
    return _message(opening, content, _stop(ending), ending.usage)


def message_ending(ending: Ending) -> bytes:
    """The events behind the last block."""
    told = {"type": "message_delta", "delta": _stop(ending), "usage": _usage(ending.usage)}
    return b"event: message_delta\ndata: " + one_line(_encode(told)) + b"\n\n" + _MESSAGE_STOP


class MessageEncoder:
    """The server-sent events of one message; see ``StreamEncoder``."""

    __slots__ = ("_opening",)

    def __init__(self, opening: Opening) -> None:
        self._opening = opening

    def first(self) -> bytes:
        return self.started() + _BEGUN

    def started(self) -> bytes:
        """The event that opens the stream."""
        usage = Usage(self._opening.prompt_tokens, 0)
        message = _message(self._opening, b"[]", _NOT_STOPPED, usage)
        started = b'data: {"type":"message_start","message":' + message + b"}\n\n"
        return b"event: message_start\n" + started

    def content(self, text: str) -> bytes:
        return _DELTA + json_text(text) + b"}}\n\n"

    def end(self, ending: Ending) -> bytes:
        return _BLOCK_STOP + message_ending(ending)

    def error(self, error: PortalError, request_id: str) -> bytes:
        return b"event: error\ndata: " + ANTHROPIC.error_body(error, request_id) + b"\n\n"


_NOT_STOPPED: Final[dict[str, str | None]] = {"stop_reason": None, "stop_sequence": None}


def _message(opening: Opening, content: bytes, stop: dict[str, str | None], usage: Usage) -> bytes:
    fields = {
        "id": f"msg_{opening.job}",
        "type": "message",
        "role": "assistant",
        "model": opening.request.model,
        **stop,
        "usage": _usage(usage),
    }
    return one_line(_encode(fields))[:-1] + b',"content":' + content + b"}"


def _stop(ending: Ending) -> dict[str, str | None]:
    if ending.reason == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if ending.reason == "tool_calls":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    reason = "end_turn" if ending.stop is None else "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": ending.stop}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }
