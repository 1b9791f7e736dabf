"""Reads of usage: sums over the rollups, never over the ledger."""

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import Case, CharField, F, When

from portal.core.actors import NIL_TENANT, Context
from portal.core.errors import Forbidden, Invalid
from portal.core.tenancy import platform_scope, tenant_scope
from tenants.models import ApiKey, Tenant, UsageWatermark, User
from tenants.models.people import UserKind
from tenants.permissions import Action, require

MOST_DAYS: Final = 1100
_AT_ONCE: Final = 1000


class Group(StrEnum):
    """What usage can be split by."""

    DAY = "day"
    USER = "user"
    KEY = "key"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which usage is wanted: whole days, ``first`` and ``last`` among them, and how it is split.

    Raises:
        Invalid: the last day is before the first, or the days are too many or too far away.
    """

    first: date
    last: date
    group_by: tuple[Group, ...] = ()

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise Invalid("'to' is before 'from'.", param="to")
        if not (self.first.year >= 2000 and self.last.year < 2200):
            raise Invalid("The days must lie between 2000 and 2199.", param="from")
        if (self.last - self.first).days >= MOST_DAYS:
            raise Invalid(f"Ask for at most {MOST_DAYS} days at once.", param="from")

    def described(self) -> dict[str, str]:
        """The query as the audit trail records it."""
        return {
            "from": self.first.isoformat(),
            "to": self.last.isoformat(),
            "group_by": ",".join(self.group_by),
        }


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Usage of one group; what it is not split by is None.

    ``cost`` is in nano-units of ``currency``: usage in two currencies is two rows. ``tenant`` and
    ``tenant_id`` are set where usage is read across tenants.
    """

    tenant_id: UUID | None
    tenant: str | None
    day: date | None
    user_id: UUID | None
    user: str | None
    api_key_id: UUID | None
    api_key: str | None
    model_id: UUID | None
    sku: str | None
    currency: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: int


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Rows in a fixed order, newest day first, and where the next page begins, if there is one."""

    rows: tuple[UsageRow, ...]
    following: str | None


@dataclass(frozen=True, slots=True)
class UsageFrame:
    """What every answer says of itself.

    ``complete_until``: every charge recorded before it is in the figures; None before the first
    rollup. ``time_zone`` is where the days begin.
    """

    complete_until: datetime | None
    time_zone: str


@contextmanager
def usage_scope(context: Context) -> Iterator[None]:
    """Where usage is read: across tenants for an administrator who is in none, else in one.

    Raises:
        Forbidden: the caller may not read usage, or has chosen no tenant.
    """
    require(context, Action.USAGE_READ)
    if crosses_tenants(context):
        with platform_scope(context, reason="usage is read"):
            yield
    else:
        if context.tenant_id is None:
            raise Forbidden("Choose a tenant first.", code="no_tenant")
        with tenant_scope(context):
            yield


def crosses_tenants(context: Context) -> bool:
    """Whether the caller reads the usage of every tenant."""
    return context.tenant_id is None and context.platform_role is not None


def usage_frame(context: Context) -> UsageFrame:
    """What the figures of this moment are worth; read it before them. Inside the scope."""
    mark = UsageWatermark.objects.get()
    zone = "UTC"
    if context.tenant_id is not None:
        zone = Tenant.objects.get(pk=context.tenant_id).time_zone
    return UsageFrame(mark.complete_until, zone)


def month_to_date(zone: str, now: datetime) -> tuple[date, date]:
    """The first day of this month and today, in a time zone."""
    today = now.astimezone(ZoneInfo(zone)).date()
    return today.replace(day=1), today


# Column of the answer -> SQL over a bucket, by what it is split by. NIL stands for nobody, so
# that a position can be compared.
_NIL: Final = f"'{NIL_TENANT}'::uuid"
_COLUMNS: Final[dict[str, dict[str, str]]] = {
    "tenant": {"tenant_id": "tenant_id"},
    Group.DAY: {"day": "(starts_at AT TIME ZONE %(zone)s)::date"},
    Group.USER: {"user_id": f"coalesce(user_id, {_NIL})"},
    Group.KEY: {"api_key_id": f"coalesce(api_key_id, {_NIL})"},
    Group.MODEL: {"model_id": "model_id", "sku": "sku"},
    "currency": {"currency": "currency"},
}
_TYPES: Final = {"day": "date", "sku": "text", "currency": "text"}


class UsageReader:
    """Reads a query's rows page by page, inside ``usage_scope``."""

    def __init__(self, context: Context, query: UsageQuery, zone: str) -> None:
        tenant = ("tenant",) if crosses_tenants(context) else ()
        # Always in this order, whatever order was asked for: positions depend on it.
        groups = (*tenant, *(group for group in Group if group in query.group_by), "currency")
        self._columns = {n: sql for group in groups for n, sql in _COLUMNS[group].items()}
        # Days first: the newest day is what one looks for.
        if "day" in self._columns:
            self._columns = {"day": self._columns.pop("day"), **self._columns}
        self._period: dict[str, Any] = {
            "zone": zone,
            "first": _midnight(query.first, zone),
            "end": _midnight(query.last + timedelta(days=1), zone),
        }

    def page(self, *, limit: int, before: str | None = None) -> UsagePage:
        """The rows after a position.

        Raises:
            Invalid: the position is none of this query's.
        """
        names = list(self._columns)
        values: dict[str, Any] = {**self._period, "limit": limit + 1}
        after = ""
        if before is not None:
            places = ", ".join(f"%({n}_before)s::{_TYPES.get(n, 'uuid')}" for n in names)
            after = f"WHERE ({', '.join(names)}) < ({places})"
            values |= {f"{n}_before": v for n, v in self._position(before).items()}
        with connection.cursor() as cursor:
            cursor.execute(f"{self._statement(after)} LIMIT %(limit)s", values)
            found = self._named(cursor.fetchall())
        more = len(found) > limit
        following = _token([found[limit - 1][n] for n in names]) if more else None
        return UsagePage(_labelled(found[:limit]), following)

    def rows(self) -> Iterator[UsageRow]:
        """All rows as they are at one moment; few of them are in memory at a time."""
        with connection.chunked_cursor() as cursor:
            cursor.execute(self._statement(""), self._period)
            while found := self._named(cursor.fetchmany(_AT_ONCE)):
                yield from _labelled(found)

    def _named(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        return [dict(zip((*self._columns, *_SUMS), row, strict=True)) for row in rows]

    def _statement(self, after: str) -> str:
        names = ", ".join(self._columns)
        columns = ", ".join(f"{sql} AS {name}" for name, sql in self._columns.items())
        sums = ", ".join(f"sum({name})::bigint AS {name}" for name in _SUMS)
        numbers = ", ".join(map(str, range(1, len(self._columns) + 1)))
        order = ", ".join(f"{name} DESC" for name in self._columns)
        return (
            f"SELECT {names}, {', '.join(_SUMS)} FROM (SELECT {columns}, {sums} "
            "FROM tenants_usagebucket WHERE starts_at >= %(first)s AND starts_at < %(end)s "
            f"GROUP BY {numbers}) usage {after} ORDER BY {order}"
        )

    def _position(self, token: str) -> dict[str, Any]:
        try:
            parts = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
            if not isinstance(parts, list) or not all(isinstance(p, str) for p in parts):
                raise ValueError(token)
            named = dict(zip(self._columns, parts, strict=True))
            return {name: _parsed(name, part) for name, part in named.items()}
        except (ValueError, RecursionError):
            raise Invalid("The position in the list is malformed.", param="before") from None


_SUMS: Final = ("requests", "prompt_tokens", "completion_tokens", "cost")


def _midnight(day: date, zone: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _token(values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps([str(v) for v in values]).encode()).decode()


def _parsed(name: str, text: str) -> Any:
    if _TYPES.get(name) == "text":
        text.encode()
        if "\x00" in text:
            raise ValueError(text)
        return text
    return date.fromisoformat(text) if name == "day" else UUID(text)


def _labelled(found: list[dict[str, Any]]) -> tuple[UsageRow, ...]:
    """The rows with what people call their users, keys and tenants."""
    users = _names(User.everyone.annotate(shown=_SHOWN), "shown", found, "user_id")
    keys = _names(ApiKey.objects.all(), "name", found, "api_key_id")
    tenants = _names(Tenant.objects.all(), "name", found, "tenant_id")
    rows = []
    for group in found:
        values = {n: None if v == NIL_TENANT else v for n, v in group.items()}
        values["user"] = users.get(values.get("user_id"))
        values["api_key"] = keys.get(values.get("api_key_id"))
        values["tenant"] = tenants.get(values.get("tenant_id"))
        rows.append(UsageRow(**{**_NOT_SPLIT, **values}))
    return tuple(rows)


_SHOWN: Final = Case(
    When(kind=UserKind.SERVICE, then=F("full_name")), default=F("email"), output_field=CharField()
)

_NOT_SPLIT: Final[dict[str, Any]] = dict.fromkeys(
    ("tenant_id", "day", "user_id", "api_key_id", "model_id", "sku")
)


def _names(objects: Any, label: str, found: list[dict[str, Any]], column: str) -> dict[Any, str]:
    ids = {values[column] for values in found if column in values}
    if not ids:
        return {}
    return dict(objects.filter(pk__in=ids).values_list("pk", label))
