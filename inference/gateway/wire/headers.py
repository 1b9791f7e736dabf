"""Headers of ``/v1``, in and out. What comes in is hostile; nothing here raises on it."""

import math
import re
from typing import Final

import msgspec

from portal.core.errors import PortalError
from portal.core.redaction import mask

MAX_TOKEN_CHARS: Final = 512
MAX_REQUEST_ID_CHARS: Final = 128

# RFC 6750, section 2.1: the scheme, spaces, a b64token.
_BEARER: Final = re.compile(
    rf"[ \t]*bearer +([A-Za-z0-9._~+/=-]{{1,{MAX_TOKEN_CHARS}}})[ \t]*", re.IGNORECASE
)
_API_KEY: Final = re.compile(rf"[ \t]*([A-Za-z0-9._~+/=-]{{1,{MAX_TOKEN_CHARS}}})[ \t]*")
_SECONDS: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")

HeaderPairs = list[tuple[bytes, bytes]]


class Allowance(msgspec.Struct, frozen=True):
    """What is left of one limit; ``reset_seconds`` until it is whole again."""

    limit: int
    remaining: int
    reset_seconds: float


def parse_authorization(header: str | None) -> str | None:
    """The bearer token in an ``Authorization`` header; None if there is no well-formed one."""
    match = _BEARER.fullmatch(header) if header else None
    return match[1] if match else None


def parse_api_key(header: str | None) -> str | None:
    """The token in an ``x-api-key`` header, as Anthropic's clients send it; None as above."""
    match = _API_KEY.fullmatch(header) if header else None
    return match[1] if match else None


def client_request_id(header: str | None) -> str | None:
    """A caller's own id for a request: printable ASCII, at most 128 characters, or None.

    It is kept in the audit trail, so a key or a password that was sent in its place is masked.
    """
    if not header:
        return None
    # Bounded before it is cleaned: what follows the first few hundred characters is never kept.
    printable = _UNPRINTABLE.sub("", header[: 4 * MAX_REQUEST_ID_CHARS])
    return mask(printable.strip())[:MAX_REQUEST_ID_CHARS].rstrip() or None


def timeout_seconds(header: str | None) -> float | None:
    """A time span in seconds, such as ``30`` or ``2.5``; None if it is not one, or is 0."""
    return (float(header) or None) if header and _SECONDS.fullmatch(header.strip()) else None


def rate_limit_headers(
    *, requests: Allowance | None = None, tokens: Allowance | None = None
) -> HeaderPairs:
    """The ``x-ratelimit-*`` headers of the limits that apply."""
    headers: HeaderPairs = []
    for name, allowance in ((b"requests", requests), (b"tokens", tokens)):
        if allowance is not None:
            headers += (
                (b"x-ratelimit-limit-" + name, b"%d" % allowance.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % max(0, allowance.remaining)),
                (b"x-ratelimit-reset-" + name, duration(allowance.reset_seconds).encode()),
            )
    return headers


def retry_headers(error: PortalError) -> HeaderPairs:
    """What tells a client when, and whether, to try again; empty for most errors.

    OpenAI's clients retry every 429 by themselves unless ``x-should-retry`` says otherwise.
    """
    headers: HeaderPairs = []
    if error.retry_after is not None:
        headers.append((b"retry-after", retry_after(error.retry_after).encode()))
    if error.error_code == "insufficient_quota":
        headers.append((b"x-should-retry", b"false"))
    return headers


def retry_after(seconds: float) -> str:
    """``Retry-After`` in whole seconds, rounded up, at least 1."""
    return str(max(1, math.ceil(seconds)))


def duration(seconds: float) -> str:
    """A time span as OpenAI writes it: ``20ms``, ``1s``, ``7.66s``, ``6m0s``, ``24h0m0s``."""
    milliseconds = max(0, math.ceil(seconds * 1000))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    tail = f"{rest // 1000}.{rest % 1000:03d}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return tail
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{tail}" if hours else f"{minutes}m{tail}"
