"""What ``/v1/responses`` answers: the response object, and the events of its stream."""

from typing import Final

import msgspec

from inference.gateway.wire.common import Ending, Opening, Usage
from inference.gateway.wire.response import json_text
from portal.core.errors import PortalError

_encode: Final = msgspec.json.Encoder().encode

# Of what is not served, each member has the value that says so.
_FIXED: Final = (
    b',"background":false,"parallel_tool_calls":true,"previous_response_id":null,'
    b'"reasoning":{"effort":null,"summary":null},"service_tier":"default","store":false,'
    b'"tool_choice":"auto","tools":[],"top_logprobs":0,'
    b'"truncation":"disabled",'
)
_PLACE: Final = b'"output_index":0,"content_index":0,'
_NO_OUTPUT: Final = b"[]"


def whole_response(opening: Opening, text: str, ending: Ending) -> bytes:
    """A ``response`` object as JSON."""
    output = b"[" + _item(opening, json_text(text), _status(ending)) + b"]"
    return _ended(opening, output, ending)


class ResponseEncoder:
    """The server-sent events of one response, numbered; see ``StreamEncoder``."""

    __slots__ = ("_delta", "_item_id", "_number", "_opening", "_pieces")

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._item_id = b'"item_id":"' + _item_id(opening) + b'",'
        self._delta = self._item_id + _PLACE + b'"logprobs":[],"delta":'
        self._number = 0
        self._pieces: list[str] = []

    def first(self) -> bytes:
        begun = b'"response":' + _response(self._opening, "in_progress", _NO_OUTPUT)
        item = _item(self._opening, None, "in_progress")
        return b"".join(
            (
                self._event(b"response.created", begun),
                self._event(b"response.in_progress", begun),
                self._event(b"response.output_item.added", b'"output_index":0,"item":' + item),
                self._event(
                    b"response.content_part.added",
                    self._item_id + _PLACE + b'"part":' + _part(b'""'),
                ),
            )
        )

    def content(self, text: str) -> bytes:
        self._pieces.append(text)
        return self._event(b"response.output_text.delta", self._delta + json_text(text))

    def end(self, ending: Ending) -> bytes:
        text = json_text("".join(self._pieces))
        status = _status(ending)
        item = _item(self._opening, text, status)
        place = self._item_id + _PLACE
        response = b'"response":' + _ended(self._opening, b"[" + item + b"]", ending)
        return b"".join(
            (
                self._event(b"response.output_text.done", place + b'"logprobs":[],"text":' + text),
                self._event(b"response.content_part.done", place + b'"part":' + _part(text)),
                self._event(b"response.output_item.done", b'"output_index":0,"item":' + item),
                self._event(b"response." + status.encode(), response),
            )
        )

    def error(self, error: PortalError, request_id: str) -> bytes:
        text = json_text("".join(self._pieces))
        item = _item(self._opening, text, "incomplete")
        failure = _encode({"code": "server_error", "message": error.message})
        failed = _response(self._opening, "failed", b"[" + item + b"]", error=failure)
        told = {
            "code": error.error_code,
            "message": error.message,
            "param": error.param,
            "request_id": request_id,
        }
        return self._event(b"error", _encode(told)[1:-1]) + self._event(
            b"response.failed", b'"response":' + failed
        )

    def _event(self, name: bytes, members: bytes) -> bytes:
        number = self._number
        self._number = number + 1
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (
            name,
            name,
            number,
            members,
        )


def _ended(opening: Opening, output: bytes, ending: Ending) -> bytes:
    why = b'{"reason":"max_output_tokens"}' if ending.reason == "length" else b"null"
    return _response(opening, _status(ending), output, incomplete=why, usage=_usage(ending.usage))


def _status(ending: Ending) -> str:
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
    """The message; its content is empty until there is a text, which comes as JSON."""
    return b'{"type":"message","id":"%b","status":"%b","role":"assistant","content":[%b]}' % (
        _item_id(opening),
        status.encode(),
        b"" if text is None else _part(text),
    )


def _part(text: bytes) -> bytes:
    return b'{"type":"output_text","annotations":[],"logprobs":[],"text":' + text + b"}"


def _usage(usage: Usage) -> bytes:
    return _encode(
        {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
    )
