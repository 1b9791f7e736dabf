"""Errors on ``/v1``: OpenAI's error object, and the refusals that the gateway itself makes."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from inference.gateway.wire.diagnose import shown
from portal.core.errors import (
    Invalid,
    NotFound,
    PortalError,
    TooMany,
    Unauthenticated,
    Unavailable,
)

# Codes of errors raised below the gateway, in OpenAI's words.
_CODES: Final = {
    "unauthenticated": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "invalid": "invalid_value",
}


def error_type(error: PortalError) -> str:
    """OpenAI's ``type`` of ``error``.

    As OpenAI has it: a bad key or an unknown model is an ``invalid_request_error``, and a rate
    limit's type is what is limited.
    """
    status = error.error_status
    if status == 429:
        if error.error_code == "insufficient_quota":
            return "insufficient_quota"
        return "tokens" if error.data.get("unit") == "tokens" else "requests"
    if status == 403:
        return "permission_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def error_code(error: PortalError) -> str:
    """The stable code of ``error``, in OpenAI's words."""
    return _CODES.get(error.error_code, error.error_code)


def error_body(error: PortalError, request_id: str) -> bytes:
    """``error`` as JSON: ``{"error": {"message", "type", "param", "code"}, "request_id"}``."""
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": error_type(error),
                "param": error.param,
                "code": error_code(error),
            },
            "request_id": request_id,
        }
    )


def error_event(error: PortalError, request_id: str) -> bytes:
    """``error`` as the last server-sent event of a stream that has begun.

    Clients take a ``data`` line with an ``error`` member for a failure; no ``[DONE]`` follows.
    """
    return b"data: " + error_body(error, request_id) + b"\n\n"


def invalid_api_key() -> Unauthenticated:
    """401: no key, or one that is unknown, malformed, revoked or expired: which is not said."""
    return Unauthenticated(
        "Incorrect API key provided. Send a valid key as 'Authorization: Bearer KEY'.",
        code="invalid_api_key",
    )


def model_not_found(name: str) -> NotFound:
    """404: no such model, or not for this key; the two look the same."""
    return NotFound(
        f"The model '{shown(name)}' does not exist or you do not have access to it.",
        code="model_not_found",
        param="model",
    )


_ENDPOINTS: Final = {
    "generate": "it generates text: call /v1/chat/completions",
    "embed": "it makes embeddings: call /v1/embeddings, or /v1/rerank",
    "rerank": "it ranks documents: call /v1/rerank",
}


def wrong_task(name: str, task: str) -> Invalid:
    """400: the model does not do what the endpoint is for; the message names the right one."""
    return Invalid(
        f"The model '{shown(name)}' can't be used here; {_ENDPOINTS[task]}.",
        code="wrong_model_task",
        param="model",
    )


def not_served(name: str) -> Unavailable:
    """503: the model has no deployment that is enabled now."""
    return Unavailable(
        f"The model '{name}' is not served at the moment; try again shortly.",
        code="model_not_available",
        retry_after=5,
    )


def context_length_exceeded(
    *, context: int, prompt_tokens: int, max_tokens: int | None, param: str = "messages"
) -> Invalid:
    """400: prompt and answer don't fit the model's context; all in tokens.

    Args:
        param: the parameter that holds the prompt.
    """
    if max_tokens is None or prompt_tokens >= context:
        used = f"your {param} resulted in {prompt_tokens} tokens. Please reduce the length of"
        what = f"the {param}"
    else:
        used = (
            f"you requested {prompt_tokens + max_tokens} tokens ({prompt_tokens} in the {param}, "
            f"{max_tokens} in the completion). Please reduce the length of"
        )
        what = f"the {param} or completion"
    return Invalid(
        f"This model's maximum context length is {context} tokens. However, {used} {what}.",
        code="context_length_exceeded",
        param=param,
    )


def rate_limited(
    *, unit: str, scope: str, maximum: int, window: str, resets_at: datetime, retry_after: float
) -> TooMany:
    """429: a limit that refills by itself.

    Args:
        unit: what is limited: ``requests``, ``tokens``, or ``cost`` in nano-units of currency.
        scope: whose limit it is, such as ``API key`` or ``tenant and model``.
        maximum: how many ``unit`` a ``window`` allows.
        window: such as ``minute``.
        resets_at: when the window ends, in the time zone in which it is to be told.
        retry_after: seconds until a retry can succeed.
    """
    return TooMany(
        f"Rate limit reached for this {scope}: {_amount(maximum, unit)} per {window}. "
        f"It resets at {_moment(resets_at)}.",
        code="rate_limit_exceeded",
        data=_limit(unit, scope, maximum, window, resets_at),
        retry_after=retry_after,
    )


def queue_too_long(model: str, *, wait: float, patience: float) -> TooMany:
    """429: it would not begin before its caller gives up; nothing is reserved.

    Args:
        wait, patience: seconds that it would wait, and that the caller would.
    """
    return TooMany(
        f"The model '{shown(model)}' is busy: this request would wait about {wait:.0f} s and its "
        f"caller waits {patience:.0f} s. Try again later, or allow it more time.",
        code="queue_too_long",
        data={"unit": "requests", "expected_wait": round(wait, 1), "patience": round(patience, 1)},
        retry_after=wait - patience,
    )


def too_many_at_once(*, scope: str, maximum: int) -> TooMany:
    """429: ``maximum`` generations of this ``scope`` run or wait; one that ends makes room."""
    return TooMany(
        f"Rate limit reached for this {scope}: {maximum} generations at once. "
        "Try again when one has ended.",
        code="rate_limit_exceeded",
        data=_limit("requests", scope, maximum, "concurrency", None),
        retry_after=1,
    )


def insufficient_quota(
    *,
    unit: str,
    scope: str,
    maximum: int,
    window: str,
    resets_at: datetime | None = None,
    retry_after: float | None = None,
) -> TooMany:
    """429: a budget is used up; clients should not retry by themselves.

    Args:
        unit: as the others in `rate_limited`. ``resets_at`` is None for a budget, whose ``window``
            is ``total``, that an administrator must raise.
    """
    span = "in total" if window == "total" else f"per {window}"
    when = (
        f"It resets at {_moment(resets_at)}." if resets_at else "Ask your administrator for more."
    )
    return TooMany(
        f"You exceeded the quota of this {scope}: {_amount(maximum, unit)} {span}. {when}",
        code="insufficient_quota",
        data=_limit(unit, scope, maximum, window, resets_at),
        retry_after=retry_after,
    )


def _limit(
    unit: str, scope: str, maximum: int, window: str, resets_at: datetime | None
) -> dict[str, Any]:
    return {
        "unit": unit,
        "scope": scope,
        "limit": maximum,
        "window": window,
        "resets_at": _moment(resets_at) if resets_at else None,
    }


def _amount(maximum: int, unit: str) -> str:
    """A limit in words; cost in whole units of currency, for nobody counts in billionths."""
    if unit != "cost":
        return f"{maximum} {unit}"
    return f"a cost of {Decimal(maximum).scaleb(-9).normalize():f}"


def body_too_large(limit: int) -> Invalid:
    """413: the body is longer than ``limit`` bytes."""
    return Invalid(
        f"The body is too large: at most {limit} bytes are allowed.",
        code="body_too_large",
        status=413,
    )


def unsupported_media_type() -> Invalid:
    """415: the body is not declared as JSON."""
    return Invalid(
        "Send the body as JSON with 'Content-Type: application/json'.",
        code="unsupported_media_type",
        status=415,
    )


def caller_gone() -> Invalid:
    """400: the caller went away before all of the body had come; nobody hears it."""
    return Invalid("The upload was broken off.", code="upload_interrupted")


def method_not_allowed(method: str, allowed: Iterable[str]) -> Invalid:
    """405: the path exists for other methods."""
    return Invalid(
        f"Method {shown(method)} is not allowed here; use {', '.join(allowed)}.",
        code="method_not_allowed",
        status=405,
    )


def unknown_url(method: str, path: str) -> NotFound:
    """404: nothing is served at ``path``."""
    return NotFound(f"Invalid URL ({shown(method)} {shown(path)}).", code="unknown_url")


def unavailable(retry_after: float = 1.0) -> Unavailable:
    """503: a part that is needed does not answer; nothing was done or charged."""
    return Unavailable(
        "The service is temporarily unavailable; nothing was charged. Try again shortly.",
        code="service_unavailable",
        retry_after=retry_after,
    )


def server_error() -> PortalError:
    """500: a fault of ours; its cause is in the log under the request id, not in the answer."""
    return PortalError(
        "The server had an error while processing your request. "
        "Name the request id if you report it.",
        code="server_error",
    )


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
