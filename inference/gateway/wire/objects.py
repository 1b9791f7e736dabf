"""Ids, pages and small values that files and batches share on the wire."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec

from inference.gateway.wire.diagnose import shown
from portal.core.errors import Invalid, NotFound

FILE: Final = "file-"
BATCH: Final = "batch_"
LEAST_EXPIRY_SECONDS: Final = 3600
MOST_EXPIRY_SECONDS: Final = 30 * 24 * 3600

_HEX: Final = re.compile(r"[0-9a-f]{32}")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_WHAT: Final = {FILE: "file", BATCH: "batch"}


def file_name(file_id: UUID) -> str:
    """A file's id as callers know it."""
    return FILE + file_id.hex


def batch_name(batch_id: UUID) -> str:
    """A batch's id as callers know it."""
    return BATCH + batch_id.hex


def parse_name(prefix: str, name: str, param: str | None = None) -> UUID:
    """The id in a caller's name of a file or batch.

    Raises:
        NotFound: it is none, so there is nothing by it.
    """
    rest = name.removeprefix(prefix)
    if not name.startswith(prefix) or not _HEX.fullmatch(rest):
        raise no_such(prefix, name, param)
    return UUID(hex=rest)


def no_such(prefix: str, name: str, param: str | None = None) -> NotFound:
    """404: the tenant has no such file or batch; another tenant's looks the same."""
    what = _WHAT[prefix]
    return NotFound(f"No such {what}: '{shown(name)}'.", code=f"{what}_not_found", param=param)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for.

    Attributes:
        after: the last object of the page before; None for the first page.
        filters: what else was asked for by name.
    """

    after: UUID | None
    limit: int
    ascending: bool
    filters: Mapping[str, str]


def parse_page(query: bytes, prefix: str, *, default: int, most: int, filters: set[str]) -> Page:
    """The page that a query string asks for; names that mean nothing are passed over.

    Raises:
        Invalid: a value is wrong.
    """
    try:
        given = dict(parse_qsl(query.decode(), max_num_fields=32))
    except (UnicodeDecodeError, ValueError):
        raise Invalid("The query string can't be read.", code="invalid_query") from None
    order = given.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _wrong("order", "use 'asc' or 'desc'")
    limit = given.get("limit", str(default))
    if not _WHOLE.fullmatch(limit) or not 1 <= int(limit) <= most:
        raise _wrong("limit", f"use a whole number from 1 to {most}")
    try:
        after = parse_name(prefix, given["after"]) if given.get("after") else None
    except NotFound:
        raise _wrong("after", "use the id of the last object of the page before") from None
    found = {name: value for name, value in given.items() if name in filters}
    return Page(after, int(limit), order == "asc", found)


def listing(objects: list[dict[str, Any]], *, more: bool) -> bytes:
    """A page of a list as JSON."""
    return msgspec.json.encode(
        {
            "object": "list",
            "data": objects,
            "first_id": objects[0]["id"] if objects else None,
            "last_id": objects[-1]["id"] if objects else None,
            "has_more": more,
        }
    )


def expiry_seconds(anchor: object, seconds: object, param: str) -> int:
    """How long a file is kept, in seconds from its creation.

    Raises:
        Invalid: another anchor, or not a number of seconds within the bounds.
    """
    if anchor != "created_at":
        raise _wrong(f"{param}.anchor", "use 'created_at'")
    number = int(seconds) if isinstance(seconds, str) and _WHOLE.fullmatch(seconds) else seconds
    whole = isinstance(number, int) and not isinstance(number, bool)
    if not whole or not LEAST_EXPIRY_SECONDS <= number <= MOST_EXPIRY_SECONDS:  # type: ignore[operator]
        span = f"{LEAST_EXPIRY_SECONDS} to {MOST_EXPIRY_SECONDS}"
        raise _wrong(f"{param}.seconds", f"use a whole number from {span}")
    return number  # type: ignore[return-value]


def _wrong(param: str, remedy: str) -> Invalid:
    return Invalid(f"Invalid '{param}': {remedy}.", code="invalid_value", param=param)
