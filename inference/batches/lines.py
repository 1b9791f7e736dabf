"""The lines of a batch's input: found in bounded steps, and checked; pure functions."""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from inference.gateway.wire.checks import DEFAULT_LIMITS
from inference.gateway.wire.diagnose import refusal_of
from portal.core.errors import Invalid

MOST_ID_CHARS: Final = 512
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Line(msgspec.Struct, frozen=True):
    """A line as it stands in the file.

    Attributes:
        number: from 1.
        start: its first byte in the file.
        content: without its line feed; None if it is longer than a request may be.
        following: the first byte of the next line.
    """

    number: int
    start: int
    content: bytes | None
    following: int


class Request(msgspec.Struct, frozen=True):
    """What a line asks for; ``body`` is the bytes of its request."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Model(msgspec.Struct):
    model: str


class LineFault(msgspec.Struct, frozen=True):
    """What is wrong with a line, or with all of the file (``line`` is None): OpenAI's shape."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


_decode: Final = msgspec.json.Decoder(Request).decode
_decode_model: Final = msgspec.json.Decoder(_Model).decode


def read_lines(
    piece_at: Callable[[int], bytes], *, start: int, lines_before: int, longest: int
) -> Iterator[Line]:
    """The lines from the byte ``start`` on; the last may lack its line feed.

    No more than ``longest`` bytes and one piece are held at a time.

    Args:
        piece_at: the bytes from an offset on, some of them; none at the end of the file.
        lines_before: how many lines come before ``start``.
        longest: bytes that a line may have.
    """
    held = bytearray()
    number, begun, offset, too_long = lines_before, start, start, False
    while piece := piece_at(offset):
        at = 0
        while (end := piece.find(b"\n", at)) >= 0:
            number += 1
            if not too_long:
                held += piece[at:end]
            content = None if too_long or len(held) > longest else bytes(held)
            following = offset + end + 1
            yield Line(number, begun, content, following)
            held.clear()
            begun, at, too_long = following, end + 1, False
        if not too_long:
            held += piece[at:]
        if len(held) > longest:
            held.clear()
            too_long = True
        offset += len(piece)
    if offset > begun:
        yield Line(number + 1, begun, None if too_long else bytes(held), offset)


def without_mark(content: bytes) -> bytes:
    """A line without the byte order mark that some programs begin a file with."""
    return content.removeprefix(_BYTE_ORDER_MARK)


def parse_request(content: bytes) -> Request:
    """The request of a line.

    Raises:
        Invalid: it is no JSON, or not of the shape of a request.
    """
    try:
        return _decode(without_mark(content))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise refusal_of(content, fault, DEFAULT_LIMITS.depth) from None


def check_line(line: Line, *, endpoint: str, model: str) -> tuple[Request, str] | LineFault:
    """The request of a line with its model, or what is wrong with it.

    Whether the body can be run is found out when it is: such a line fails alone.

    Args:
        model: what the lines before it name; empty for the first one.
    """
    if line.content is None:
        return LineFault("line_too_long", "This line is longer than a request may be.", line.number)
    try:
        request = parse_request(line.content)
        named = _decode_model(request.body).model
    except Invalid as refusal:
        code = refusal.error_code
        known = code if refusal.param else "invalid_json_line"
        return LineFault(known, refusal.message, line.number, refusal.param)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return LineFault(
            "invalid_body",
            "The body must be an object that names a 'model'.",
            line.number,
            "body",
        )
    fault = _misfit(request, named, endpoint, model)
    if fault is not None:
        code, message, param = fault
        return LineFault(code, message, line.number, param)
    return request, named


def _misfit(request: Request, named: str, endpoint: str, model: str) -> tuple[str, str, str] | None:
    if not 0 < len(request.custom_id) <= MOST_ID_CHARS or "\0" in request.custom_id:
        bound = f"from 1 to {MOST_ID_CHARS} characters and no NUL"
        return "invalid_custom_id", f"The custom_id must have {bound}.", "custom_id"
    if request.method != "POST":
        return "invalid_method", "The method must be POST.", "method"
    if request.url != endpoint:
        return "invalid_url", f"The url must be the batch's endpoint, '{endpoint}'.", "url"
    if not named or (model and named != model):
        return "mismatched_model", "Every line must name the same model.", "body.model"
    return None
