"""What ``/v1/responses`` answers: the response object, and the events of its stream."""

from collections.abc import Callable
from typing import Final

import msgspec

from inference.gateway.wire.common import Ending, Opening, Usage
from inference.gateway.wire.response import json_text
from portal.core.errors import PortalError

_encode: Final = msgspec.json.Encoder().encode

# Of what is not served, each member has the value that says so.
_FIXED: Final = (
    b',"background":false,"previous_response_id":null,'
    b'"reasoning":{"effort":null,"summary":null},"service_tier":"default","store":false,'
    b'"top_logprobs":0,'
    b'"truncation":"disabled",'
)
_PLACE: Final = b'"output_index":0,"content_index":0,'
_NO_OUTPUT: Final = b"[]"


class EventEncoder:
    """Numbers the events of a stream."""

    __slots__ = ("_number",)

    def __init__(self) -> None:
        self._number = 0

    def _event(self, name: bytes, members: bytes) -> bytes:
        number = self._number
        self._number = number + 1
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (
            name,
            name,
            number,
            members,
        )


class ResponseEncoder(EventEncoder):
    """The server-sent events of one response, numbered; see ``StreamEncoder``."""

    __slots__ = ("_delta", "_item_id", "_opening", "_pieces")

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening
        self._item_id = b'"item_id":"' + _item_id(opening) + b'",'
        self._delta = self._item_id + _PLACE + b'"logprobs":[],"delta":'
        self._pieces: list[str] = []

    def first(self) -> bytes:
        begun = started_response(self._opening)
        item = _item(self._opening, None, "in_progress")
        return b"".join(
            (
                self._event(b"response.created", begun),
                self._event(b"response.in_progress", begun),
                self._event(b"response.output_item.added", b'"output_index":0,"item":' + item),
                self._event(
                    b"response.content_part.added",
                    self._item_id + _PLACE + b'"part":' + message_part(b'""'),
                ),
            )
        )

    def content(self, text: str) -> bytes:
        self._pieces.append(text)
        return self._event(b"response.output_text.delta", self._delta + json_text(text))

    def end(self, ending: Ending) -> bytes:
        text = json_text("".join(self._pieces))
        status = response_status(ending)
        item = _item(self._opening, text, status)
        place = self._item_id + _PLACE
        response = b'"response":' + ended_response(self._opening, b"[" + item + b"]", ending)
        return b"".join(
            (
                self._event(b"response.output_text.done", place + b'"logprobs":[],"text":' + text),
                self._event(b"response.content_part.done", place + b'"part":' + message_part(text)),
                self._event(b"response.output_item.done", b'"output_index":0,"item":' + item),
                self._event(b"response." + status.encode(), response),
            )
        )

    def error(self, error: PortalError, request_id: str) -> bytes:
        text = json_text("".join(self._pieces))
        item = _item(self._opening, text, "incomplete")
        return failed_events(self._event, self._opening, b"[" + item + b"]", error, request_id)


def started_response(opening: Opening) -> bytes:
    """The response without output yet, as a member of an event."""
    return b'"response":' + _response(opening, "in_progress", _NO_OUTPUT)


def failed_events(
    event: Callable[[bytes, bytes], bytes],
    opening: Opening,
    output: bytes,
    error: PortalError,
    request_id: str,
) -> bytes:
    """What closes a stream that has begun and failed; ``event`` makes one of name and members."""
    failure = _encode({"code": "server_error", "message": error.message})
    failed = _response(opening, "failed", output, error=failure)
    told = {
        "code": error.error_code,
        "message": error.message,
        "param": error.param,
        "request_id": request_id,
    }
    return event(b"error", _encode(told)[1:-1]) + event(b"response.failed", b'"response":' + failed)


def ended_response(opening: Opening, output: bytes, ending: Ending) -> bytes:
    """The response that has ended; its output comes as JSON."""
    why = b'{"reason":"max_output_tokens"}' if ending.reason == "length" else b"null"
    return _response(
        opening, response_status(ending), output, incomplete=why, usage=_usage(ending.usage)
    )


def response_status(ending: Ending) -> str:
    """The status of a response that ended like this."""
    return "incomplete" if ending.reason == "length" else "completed"


def _response(
    opening: Opening,
    status: str,
    output: bytes,
    *,
    error: bytes = b"null",
    incomplete: bytes = b"null",
    usage: bytes = b"null",
) -> bytes:
    fields = {
        "id": f"resp_{opening.job}",
        "object": "response",
        "created_at": opening.created,
        "model": opening.request.model,
        "status": status,
    }
    return b"".join(
        (
            _encode(fields)[:-1],
            b',"error":',
            error,
            b',"incomplete_details":',
            incomplete,
            _FIXED,
            opening.request.echo,
            b',"output":',
            output,
            b',"usage":',
            usage,
            b"}",
        )
    )


def _item_id(opening: Opening) -> bytes:
    return f"msg_{opening.job}".encode()


def _item(opening: Opening, text: bytes | None, status: str) -> bytes:
    return message_item(_item_id(opening), text, status)


def message_item(item_id: bytes, text: bytes | None, status: str) -> bytes:
    """The message; its content is empty until there is a text, which comes as JSON."""
    return b'{"type":"message","id":"%b","status":"%b","role":"assistant","content":[%b]}' % (
        item_id,
        status.encode(),
        b"" if text is None else message_part(text),
    )


def message_part(text: bytes) -> bytes:
    """A text of a message."""
    return b'{"type":"output_text","annotations":[],"logprobs":[],"text":' + text + b"}"


def _usage(usage: Usage) -> bytes:
    return _encode(
        {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
    )
