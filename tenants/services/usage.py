"""Usage: rolled up from the ledger, compared with it, and exported."""

import csv
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import IO, Any, Final
from uuid import UUID

from django.db import connection, transaction

from audit.models import Category, Outcome
from audit.services import Event, intent, record
from portal.core.actors import Context
from portal.core.tenancy import bare_scope, platform_scope
from tenants.events import TenantsEvent
from tenants.models import UsageBucket
from tenants.permissions import Action, require
from tenants.usage import UsageQuery, UsageReader, usage_frame, usage_scope

KEY: Final = ("tenant_id", "starts_at", "user_id", "api_key_id", "model_id", "sku", "currency")
FIGURES: Final = ("requests", "prompt_tokens", "completion_tokens", "cost")


def roll_up_usage(*, context: Context) -> int:
    """Adds to the rollups what the ledger has gained; returns how many charges that were.

    Exactly once, whatever runs beside it: ``usage_roll_up()`` in the migration says how.
    """
    require(context, Action.USAGE_REPAIR)
    with bare_scope(context), connection.cursor() as cursor:
        cursor.execute("SELECT usage_roll_up()")
        return int(cursor.fetchone()[0])


@dataclass(frozen=True, slots=True)
class UsageDifference:
    """A bucket whose figures are not the ledger's; ``None`` figures: there is no such bucket.

    Attributes:
        key: the values that tell the bucket from others, by column.
        ledger: requests, prompt tokens, completion tokens, cost in nano-units, by the ledger.
        rolled_up: the same by the rollup.
    """

    key: Mapping[str, Any]
    ledger: Mapping[str, int]
    rolled_up: Mapping[str, int]

    def __str__(self) -> str:
        key = " ".join(f"{name}={value}" for name, value in self.key.items())
        figures = ", ".join(
            f"{name} {self.rolled_up[name]} instead of {self.ledger[name]}"
            for name in FIGURES
            if self.rolled_up[name] != self.ledger[name]
        )
        return f"{key}: {figures}"


def _differences_sql() -> str:
    key = ", ".join(KEY)
    sums = ", ".join(f"sum(l_{f})::bigint, sum(b_{f})::bigint" for f in FIGURES)
    unequal = " OR ".join(f"sum(l_{f}) <> sum(b_{f})" for f in FIGURES)
    return f"""
SELECT {key}, {sums} FROM (
    SELECT l.tenant_id, date_bin('15 minutes', l.admitted_at, '2000-01-01 00:00+00') AS starts_at,
           l.user_id, l.api_key_id, l.model_id, l.sku, l.currency,
           1 AS l_requests, l.prompt_tokens AS l_prompt_tokens,
           l.completion_tokens AS l_completion_tokens, l.cost AS l_cost,
           0 AS b_requests, 0 AS b_prompt_tokens, 0 AS b_completion_tokens, 0 AS b_cost
      FROM tenants_ledgerentry l, tenants_usagewatermark w
     WHERE coalesce(l.xid, 0) < w.xid OR l.recorded_at < w.since
    UNION ALL
    SELECT {key}, 0, 0, 0, 0, requests, prompt_tokens, completion_tokens, cost
      FROM tenants_usagebucket
) both_sides
 WHERE starts_at >= coalesce(%s, starts_at) AND (starts_at < %s) IS NOT FALSE
 GROUP BY {key} HAVING {unequal}
 ORDER BY starts_at, tenant_id, sku
"""


_DIFFERENCES: Final = _differences_sql()


def check_usage(
    *, context: Context, since: datetime | None = None, until: datetime | None = None
) -> list[UsageDifference]:
    """The buckets that differ from the ledger, among those that begin in a period (all of them).

    What is not rolled up yet is no difference.
    """
    require(context, Action.USAGE_REPAIR)
    with platform_scope(context, reason="usage is compared with the ledger"):
        return _differences(since, until)


def repair_usage(
    *, context: Context, since: datetime | None = None, until: datetime | None = None
) -> list[UsageDifference]:
    """Gives each bucket that differs the ledger's figures; returns what differed."""
    require(context, Action.USAGE_REPAIR)
    with (
        platform_scope(context, reason="usage is made to equal the ledger"),
        connection.cursor() as cursor,
    ):
        # The lock of usage_roll_up(): nothing is rolled up meanwhile.
        cursor.execute("SELECT pg_advisory_xact_lock(4919131752989213697)")
        found = _differences(since, until)
        for difference in found:
            with intent(
                TenantsEvent.USAGE_REPAIR,
                object_type="tenants.usagebucket",
                object_label=str(difference.key["sku"]),
                detail={
                    "bucket": difference.key,
                    "before": difference.rolled_up,
                    "after": difference.ledger,
                },
            ):
                _rebuild(difference)
        return found


def _differences(since: datetime | None, until: datetime | None) -> list[UsageDifference]:
    with connection.cursor() as cursor:
        cursor.execute(_DIFFERENCES, [since, until])
        rows = cursor.fetchall()
    found = []
    for row in rows:
        key, figures = row[: len(KEY)], row[len(KEY) :]
        found.append(
            UsageDifference(
                dict(zip(KEY, key, strict=True)),
                dict(zip(FIGURES, figures[0::2], strict=True)),
                dict(zip(FIGURES, figures[1::2], strict=True)),
            )
        )
    return found


def _rebuild(difference: UsageDifference) -> None:
    key = difference.key
    nobody = {f"{name}__isnull": True for name, value in key.items() if value is None}
    named = {name: value for name, value in key.items() if value is not None}
    UsageBucket.objects.filter(**named, **nobody).delete()
    if difference.ledger["requests"]:
        UsageBucket.objects.create(**key, **difference.ledger)


COLUMNS: Final = (
    "tenant_id",
    "tenant",
    "day",
    "user_id",
    "user",
    "api_key_id",
    "api_key",
    "model_id",
    "sku",
    "currency",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cost",
)


def export_usage(*, context: Context, query: UsageQuery) -> IO[bytes]:
    """All rows of a query as CSV (UTF-8, a heading line, cost in nano-units), ready to be read.

    The figures are those of one moment; they lie in a temporary file, so that no transaction is
    open while a slow caller reads. The export is recorded with its query and number of rows.
    """
    with usage_scope(context), transaction.atomic():
        reader = UsageReader(context, query, usage_frame(context).time_zone)
        target = tempfile.SpooledTemporaryFile(max_size=1024 * 1024)  # noqa: SIM115
        text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        count = 0
        for row in reader.rows():
            writer.writerow([_cell(getattr(row, name)) for name in COLUMNS])
            count += 1
        text.detach()
        record(
            Event(
                Category.ACCESS,
                TenantsEvent.USAGE_EXPORT,
                Outcome.SUCCESS,
                object_type="tenants.usage",
                detail={**query.described(), "rows": count},
            ),
            context=context,
        )
    target.seek(0)
    return target


def _cell(value: date | UUID | str | int | None) -> str:
    """A value as a spreadsheet takes it for a text: a name must not begin a formula."""
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in "=+-@\t\r" else text
