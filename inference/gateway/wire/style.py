"""What every answer of an API has, whatever it answers: the shape of errors, and headers."""

from typing import Final

from inference.gateway.wire import errors
from inference.gateway.wire.headers import Allowance, HeaderPairs, rate_limit_headers
from portal.core.errors import PortalError


class Style:
    """Errors and headers as OpenAI has them."""

    def status(self, error: PortalError) -> int:
        """The HTTP status under which ``error`` is sent."""
        return error.error_status

    def error_body(self, error: PortalError, request_id: str) -> bytes:
        """``error`` as JSON."""
        return errors.error_body(error, request_id)

    def head(self, request_id: str) -> HeaderPairs:
        """Headers of every answer beside ours."""
        return []

    def limits(self, requests: Allowance | None, tokens: Allowance | None) -> HeaderPairs:
        """The headers of the limits that apply."""
        return rate_limit_headers(requests=requests, tokens=tokens)


OPENAI: Final = Style()
