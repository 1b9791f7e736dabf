"""The lines of a batch's results, in OpenAI's shape; pure functions."""

from typing import Any, Final
from uuid import UUID

import msgspec

from inference.batches.lines import LineFault
from inference.gateway.wire.errors import error_body
from portal.core.errors import PortalError

_encode: Final = msgspec.json.Encoder().encode


def fault_object(fault: LineFault) -> dict[str, Any]:
    """What is wrong with an input, in OpenAI's shape."""
    return {
        "code": fault.code,
        "line": fault.line,
        "message": fault.message,
        "param": fault.param,
    }


def line_name(batch_id: UUID, number: int) -> str:
    """What a line's result is known by: of the batch, and of its line in the input."""
    return f"batch_req_{batch_id.hex}_{number}"


def answered_line(name: str, custom_id: str, request_id: str, body: bytes) -> bytes:
    """The result of a line that was answered; ``body`` is the answer as JSON."""
    return _line(name, custom_id, _response(200, request_id, body), None)


def refused_line(name: str, custom_id: str, request_id: str, error: PortalError) -> bytes:
    """The result of a line whose request was refused or failed."""
    body = error_body(error, request_id)
    return _line(name, custom_id, _response(error.error_status, request_id, body), None)


def unsent_line(name: str, custom_id: str, code: str, message: str) -> bytes:
    """The result of a line that was never run."""
    return _line(name, custom_id, None, {"code": code, "message": message})


def _response(status: int, request_id: str, body: bytes) -> dict[str, Any]:
    return {"status_code": status, "request_id": request_id, "body": msgspec.Raw(body)}


def _line(
    name: str, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None
) -> bytes:
    result = {"id": name, "custom_id": custom_id, "response": response, "error": error}
    return _encode(result) + b"\n"
