"""What went wrong at a server, in the codes of ``inference.engines.base.Failed``."""

import re
from typing import Any

import msgspec

_MOST_WORDS = 500
_MOST_RETRY_SECONDS = 30.0
_TOO_LONG = re.compile(
    r"context.?(length|size|window)|maximum.{0,30}(length|tokens)|too (long|many tokens)"
    r"|exceeds?_?.{0,40}(context|max)|inputs.{0,20}tokens.{0,60}must be"
    r"|inputs.{0,3} must have less than",
    re.IGNORECASE,
)


class UpstreamFault(Exception):
    """A request that the server did not serve.

    Args:
        code: of ``Failed``.
        message: for people; holds the server's own words only where it refused the request.
        retry_seconds: when to try again, for a server that is busy; None for no second try.
        away: the server can't be reached, or is not ready yet.
    """

    def __init__(
        self, code: str, message: str, *, retry_seconds: float | None = None, away: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_seconds = retry_seconds
        self.away = away


def failed(message: str, *, away: bool = False) -> UpstreamFault:
    """A fault of the server or of the way to it: another deployment may serve the request."""
    return UpstreamFault("engine_failed", message, away=away)


def refused(message: str) -> UpstreamFault:
    """A request that this server can't serve as it is."""
    return UpstreamFault("request_refused", message)


def of_status(status: int, body: bytes, *, retry_after: str = "") -> UpstreamFault:
    """What an answer with that HTTP status means; ``body`` is as the server wrote it."""
    if status in (401, 403):
        return failed(
            f"The serving engine refused this deployment's key (HTTP {status}); an administrator"
            " must name the right one in its options."
        )
    if status in (404, 405, 501):
        return failed(f"The serving engine has no such model or path (HTTP {status}).")
    if status == 424:
        # Text Embeddings Inference: the model failed, or does something else.
        return failed("The serving engine's model failed or does something else (HTTP 424).")
    if status in (429, 503):
        fault = failed(f"The serving engine is busy (HTTP {status}).", away=status == 503)
        fault.retry_seconds = _seconds(retry_after)
        return fault
    if 400 <= status < 500:
        words = words_of(body)
        if _TOO_LONG.search(words):
            return UpstreamFault("context_length_exceeded", words)
        return refused(f"The serving engine refuses this request: {words or f'HTTP {status}'}")
    return failed(f"The serving engine failed (HTTP {status}).")


def of_error(error: Any) -> UpstreamFault:
    """What an error object inside a stream means."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 500:
        return of_status(code, msgspec.json.encode({"error": error}))
    return failed("The serving engine reported an error in its stream.")


def words_of(body: bytes) -> str:
    """The message inside an error's body, in the shapes that servers use; bounded."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found[:_MOST_WORDS] if isinstance(found, str) else ""


def _seconds(retry_after: str) -> float:
    try:
        return min(max(float(retry_after), 0.0), _MOST_RETRY_SECONDS)
    except ValueError:
        return 0.0
