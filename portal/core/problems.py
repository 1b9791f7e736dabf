"""Problem details, RFC 9457: how the control plane tells a refusal."""

from http import HTTPStatus
from typing import Any, Final

from portal.core.errors import PortalError

PROBLEM: Final = "application/problem+json"
_TITLES: Final = {status.value: status.phrase for status in HTTPStatus}


def problem_body(refusal: PortalError, request_id: str) -> dict[str, Any]:
    """The members of a refusal's body."""
    body: dict[str, Any] = {
        "type": f"urn:freehold:problem:{refusal.error_code}",
        "title": _TITLES.get(refusal.error_status, "Error"),
        "status": refusal.error_status,
        "detail": refusal.message,
        "code": refusal.error_code,
        "request_id": request_id,
    }
    if refusal.param is not None:
        body["param"] = refusal.param
    if refusal.data:
        body["data"] = refusal.data
    return body
