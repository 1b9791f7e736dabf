"""Takes secrets and people's words out of whatever is about to be written to a log.

Two rules, applied everywhere in a record: a value under a sensitive name is removed, and a string
is masked wherever it holds something shaped like a credential. What is left is plain JSON data of
bounded size; an object of a type that is not known to be harmless is shown by its type alone.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

MAX_STRING_CHARS: Final = 4096
REDACTED: Final = "[redacted]"

_MAX_SCANNED_CHARS: Final = 64 * 1024
_MAX_RECORD_CHARS: Final = 32 * 1024
_MAX_ITEMS: Final = 100
_MAX_DEPTH: Final = 8
_NODE_CHARS: Final = 8
_HEAD_CHARS: Final = 1024
_OMITTED_CHARS: Final = 64
_MAX_INTEGER_BITS: Final = 64

# Anywhere in a name. `session_id` and its like are the credentials of a browser session.
_SECRET_NAMES: Final = re.compile(
    r"password|passwd|passphrase|secret|authorization|credential|cookie|api_?key|private_key"
    r"|pepper|encryption_key|session_?id|session_key|csrf|database_url|redis_url|broker_url|dsn$"
)
# The last word of a name: secrets of one use, and what people wrote or were answered.
_PRIVATE_WORDS: Final = re.compile(
    r"(?:^|_)(?:tokens?|otp|totp|jwt|prompts?|messages|contents?|completions?|answers?|input|output"
    r"|delta|body|payload)$"
)
# Identifiers and sizes that resemble the above and are wanted in a log.
_HARMLESS_NAMES: Final = re.compile(r"(?:api_?key|secret|credential)_(?:public_)?id$")

_WORD_BREAK: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^0-9A-Za-z]+")

_API_KEY: Final = re.compile(r"fh_[0-9A-Za-z_-]{6,}", re.IGNORECASE)
_WHOLE_API_KEY: Final = re.compile(r"(fh_[0-9A-Za-z]{12}_)[0-9A-Za-z]{16,}")
_BEARER: Final = re.compile(r"\b(bearer)[\s:]+[^\s,;\"']+", re.IGNORECASE)
_JWT: Final = re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*")
_URL: Final = re.compile(r"(https?|wss?)?://(\S+)", re.IGNORECASE)
# `password=...`, `"token": "..."` and the like, in text of any kind.
_ASSIGNED: Final = re.compile(
    r"((?:password|passwd|passphrase|secret|credential|api[_-]?key|database_url|redis_url)\w{0,64}|token)"
    r"([\\\"']*\s*[:=]\s*)"
    r"([rbu]{0,2}\"(?:[^\"\\]|\\.)*(?:\"|$)|[rbu]{0,2}'(?:[^'\\]|\\.)*(?:'|$)|[^\s,;&)\]}]+)",
    re.IGNORECASE | re.DOTALL,
)
# The same where the value has no clear end; pydantic quotes bad input as `input_value=`.
_ASSIGNED_TO_LINE_END: Final = re.compile(
    r"((?:authorization|cookie|prompt|messages|content|input_value)[\\\"']*\s*[:=]).+",
    re.IGNORECASE,
)


def redact(value: Mapping[str, Any]) -> dict[str, Any]:
    """A record's fields without secrets, as JSON data of bounded size."""
    cleaner = _Cleaner()
    return cleaner.mapping(value, 0)


def mask(text: str) -> str:
    """The text without credentials, at most ``MAX_STRING_CHARS`` long, valid UTF-8.

    Masked are API keys, bearer tokens, JWTs, the user part of URLs, and values assigned to
    sensitive names. A long text keeps its beginning and its end.
    """
    if len(text) > _MAX_SCANNED_CHARS:
        # Half a secret has not its shape: the word that the cut goes through is dropped.
        head = text[:_MAX_SCANNED_CHARS]
        text = head[: len(head) - len(re.split(r"\s", head)[-1])] + "…"
    lower = text.lower()
    for hints, pattern, replacement in _MASKS:
        # Looking for plain words first spares most strings the slower patterns.
        if any(hint in lower for hint in hints):
            text = pattern.sub(replacement, text)
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return _bounded(text)


@lru_cache(maxsize=1024)
def is_sensitive(name: str) -> bool:
    """Whether values under this name are never written; ``apiKey``, ``API-KEY``: all the same."""
    words = _WORD_BREAK.sub("_", name).lower().strip("_")
    if _HARMLESS_NAMES.search(words):
        return False
    return bool(_SECRET_NAMES.search(words) or _PRIVATE_WORDS.search(words))


@lru_cache(maxsize=1024)
def _shown_name(name: str) -> str:
    return mask(name)


def _without_user(match: re.Match[str]) -> str:
    scheme, rest = match.group(1), match.group(2)
    # Passwords of databases and brokers may hold any character, even a slash or an at sign.
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0] if scheme else rest
    user, at, _ = authority.rpartition("@")
    shown = REDACTED + rest[len(user) :] if at else rest
    return f"{scheme or ''}://{shown}"


def _public_part(match: re.Match[str]) -> str:
    whole = _WHOLE_API_KEY.match(match.group())
    return f"{whole.group(1)}{REDACTED}" if whole else f"fh_{REDACTED}"


_LINE_END_WORDS: Final = ("authorization", "cookie", "prompt", "messages", "content", "input_value")
_ASSIGNED_WORDS: Final = (
    "passw",
    "passphrase",
    "secret",
    "credential",
    "api",
    "database_url",
    "redis_url",
    "token",
)
_MASKS: Final[
    Sequence[tuple[Sequence[str], re.Pattern[str], str | Callable[[re.Match[str]], str]]]
] = (
    (("://",), _URL, _without_user),
    (("bearer",), _BEARER, rf"\1 {REDACTED}"),
    (_LINE_END_WORDS, _ASSIGNED_TO_LINE_END, rf"\1 {REDACTED}"),
    (_ASSIGNED_WORDS, _ASSIGNED, rf"\1\2{REDACTED}"),
    (("fh_",), _API_KEY, _public_part),
    (("eyj",), _JWT, REDACTED),
)


def _bounded(text: str) -> str:
    if len(text) <= MAX_STRING_CHARS:
        return text
    tail = MAX_STRING_CHARS - _HEAD_CHARS - _OMITTED_CHARS
    omitted = len(text) - _HEAD_CHARS - tail
    return f"{text[:_HEAD_CHARS]} …[{omitted} characters omitted]… {text[-tail:]}"


class _Cleaner:
    """Walks one record; ``left`` is how many characters it may still write."""

    def __init__(self) -> None:
        self.left = _MAX_RECORD_CHARS

    def mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for position, (key, item) in enumerate(value.items()):
            if position == _MAX_ITEMS or self.left <= 0:
                cleaned["…"] = f"{len(value) - position} more"
                break
            name = _text(key) if isinstance(key, str | bytes) else str(self.value(key, _MAX_DEPTH))
            cleaned[_shown_name(name)] = self.under(name, item, depth)
        return cleaned

    def under(self, name: str, item: Any, depth: int) -> Any:
        """What is written for an item of this name; counts of tokens are no secrets."""
        if not is_sensitive(name):
            return self.value(item, depth + 1)
        if item is None or isinstance(item, bool):
            return item
        if isinstance(item, int | float) and name.lower().endswith("tokens"):
            return self.value(item, depth + 1)
        return REDACTED

    def value(self, value: Any, depth: int) -> Any:
        self.left -= _NODE_CHARS
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            # JSON has no word for infinity.
            return value if math.isfinite(value) else repr(float(value))
        if isinstance(value, Enum):
            return self.value(value.value, depth)
        if isinstance(value, int):
            return value if value.bit_length() <= _MAX_INTEGER_BITS else mask(f"{value:#x}")
        if isinstance(value, str | bytes | bytearray):
            return self.text(_text(value))
        for kind, show in _SHOWN.items():
            if isinstance(value, kind):
                return self.text(show(value))
        return self.container(value, depth)

    def text(self, text: str) -> str:
        if self.left <= 0:
            return "…"
        masked = mask(text)
        self.left -= len(masked)
        return masked

    def container(self, value: Any, depth: int) -> Any:
        shape = f"<{type(value).__name__}>"
        if depth >= _MAX_DEPTH:
            return shape
        if isinstance(value, Mapping):
            return self.mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self.sequence(list(value), depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value) if field.repr]
            return self.mapping({name: getattr(value, name, None) for name in names}, depth)
        return shape

    def sequence(self, items: list[Any], depth: int) -> list[Any]:
        # A pair is how headers are written: ("authorization", "...").
        if len(items) == 2 and isinstance(items[0], str | bytes):
            name = _text(items[0])
            return [self.value(items[0], depth + 1), self.under(name, items[1], depth)]
        cleaned = []
        for position, item in enumerate(items):
            if position == _MAX_ITEMS or self.left <= 0:
                cleaned.append(f"… {len(items) - position} more")
                break
            cleaned.append(self.value(item, depth + 1))
        return cleaned


def _text(value: str | bytes | bytearray) -> str:
    if isinstance(value, str):
        # Not str(): a subclass may show something else, or raise.
        return str.__str__(value)
    return bytes(value[: _MAX_SCANNED_CHARS + 1]).decode("utf-8", "backslashreplace")


def _fault(value: BaseException) -> str:
    return f"{type(value).__name__}: {value}"


_SHOWN: Final[Mapping[Any, Callable[[Any], str]]] = {
    UUID: str,
    datetime | date | time: lambda value: value.isoformat(),
    timedelta | Decimal | PurePath: str,
    IPv4Address | IPv6Address | IPv4Network | IPv6Network: str,
    BaseException: _fault,
}
