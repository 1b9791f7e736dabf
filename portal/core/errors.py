"""The one error type that crosses floors.

A service raises a ``PortalError``; each plane renders it in its own shape: RFC 9457 problem
details on the control plane, OpenAI's error object on ``/v1``.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class PortalError(Exception):
    """A refusal or failure that a caller can act on.

    Args:
        message: one sentence that says what is wrong and what to do.
        code: machine-readable, stable; a class default otherwise.
        status: HTTP status; a class default otherwise.
        param: the name of the offending input, if one is to blame.
        data: further facts, safe to show to the caller.
        retry_after: seconds after which a retry can succeed.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        param: str | None = None,
        data: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or type(self).code
        self.error_status = status or type(self).status
        self.param = param
        self.data = dict(data or {})
        self.retry_after = retry_after


class Invalid(PortalError):
    """The input is malformed or breaks a rule."""

    code = "invalid"
    status = 400


class Unauthenticated(PortalError):
    """No valid credential came with the call."""

    code = "unauthenticated"
    status = 401


class Forbidden(PortalError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403


class NotFound(PortalError):
    """Nothing there that the caller may see; another tenant's row is this too."""

    code = "not_found"
    status = 404


class Conflict(PortalError):
    """The change contradicts the present state."""

    code = "conflict"
    status = 409


class TooMany(PortalError):
    """A limit is reached; ``retry_after`` says when to come back."""

    code = "rate_limited"
    status = 429


class Unavailable(PortalError):
    """A part that is needed does not answer; nothing was done."""

    code = "unavailable"
    status = 503
