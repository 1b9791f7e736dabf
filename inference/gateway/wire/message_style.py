"""Errors and headers as Anthropic has them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from inference.gateway.wire.errors import error_code
from inference.gateway.wire.headers import Allowance, HeaderPairs
from inference.gateway.wire.style import Style
from portal.core.errors import PortalError

# Where HTTP says 503, Anthropic says this.
_OVERLOADED: Final = 529

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class AnthropicStyle(Style):
    """Anthropic's shapes; headers of OpenAI's are sent beside its own."""

    def status(self, error: PortalError) -> int:
        return _OVERLOADED if error.error_status == 503 else error.error_status

    def error_body(self, error: PortalError, request_id: str) -> bytes:
        """``{"type": "error", "error": {"type", "message", "details"}, "request_id"}``.

        The details hold what OpenAI's shape has beside: the stable code, and the parameter.
        """
        details: dict[str, Any] = {"error_code": error_code(error)}
        if error.param is not None:
            details["param"] = error.param
        told = {"type": error_type(error), "message": error.message, "details": details}
        return msgspec.json.encode({"type": "error", "error": told, "request_id": request_id})

    def head(self, request_id: str) -> HeaderPairs:
        return [(b"request-id", request_id.encode())]

    def limits(self, requests: Allowance | None, tokens: Allowance | None) -> HeaderPairs:
        headers = super().limits(requests, tokens)
        now = datetime.now(UTC)
        for name, allowance in ((b"requests", requests), (b"tokens", tokens)):
            if allowance is not None:
                prefix = b"anthropic-ratelimit-" + name
                reset = now + timedelta(seconds=allowance.reset_seconds)
                moment = reset.isoformat(timespec="seconds").replace("+00:00", "Z")
                headers += (
                    (prefix + b"-limit", b"%d" % allowance.limit),
                    (prefix + b"-remaining", b"%d" % max(0, allowance.remaining)),
                    (prefix + b"-reset", moment.encode()),
                )
        return headers


ANTHROPIC: Final = AnthropicStyle()


def error_type(error: PortalError) -> str:
    """Anthropic's ``type`` of ``error``."""
    status = error.error_status
    return _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
