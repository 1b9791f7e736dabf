"""Warnings: each level of a limit once a window, and never of what was not reached."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.core.actors import Context
from tenants import warner
from tenants.levels import level_reached, threshold
from tenants.models import LEVELS, METRICS, WARNED_WINDOWS
from tenants.services import edit_tenant, set_quota
from tenants.tasks import warn_of_quotas
from tenants.windows import window_end, window_starts
from tests.factories import Organisation, api_key
from tests.servers import SessionServers

Told = tuple[str, int]


@pytest.fixture
def gateway(gateway_sql: psycopg.Connection) -> psycopg.Connection:
    return gateway_sql


@pytest.fixture
def move(owner_sql: psycopg.Connection) -> Any:
    """Sets counters of a quota's windows, as admission and settlement would."""

    def moved(quota_id: UUID, **columns: Any) -> None:
        sets = ", ".join(f"{name} = %s" for name in columns)
        owner_sql.execute(
            f"UPDATE tenants_quotawindow SET {sets} WHERE quota_id = %s",
            [*columns.values(), quota_id],
        )

    return moved


def told(owner_sql: psycopg.Connection, quota_id: UUID) -> list[Told]:
    """Limit and level of each warning, in order."""
    return owner_sql.execute(
        "SELECT limit_name, level FROM tenants_quotawarning WHERE quota_id = %s "
        "ORDER BY limit_name, window_start, level",
        [quota_id],
    ).fetchall()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("span", WARNED_WINDOWS)
@pytest.mark.parametrize(
    ("taken", "levels"),
    [(0, []), (100, []), (101, [50]), (160, [50]), (161, [50, 80]), (201, [50, 80, 100])],
)
def test_warn_of_each_level_that_is_reached_and_of_no_other(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
    metric: str,
    span: str,
    taken: int,
    levels: list[int],
) -> None:
    name = f"{metric}_{span}"
    limits: dict[str, Any] = {name: 201}
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, **limits)
    held = {} if metric == "requests" else {f"{name}_held": taken - taken // 3}
    move(quota.id, **{f"{name}_used": taken - sum(held.values())}, **held)
    warner.warn(gateway)
    assert told(owner_sql, quota.id) == [(name, level) for level in levels]


def test_warn_again_in_the_same_window_tells_nothing_even_if_the_limit_moves(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
) -> None:
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=100)
    move(quota.id, tokens_day_used=60)
    expected = [("tokens_day", 50)]
    for limit in (100, 1000, 100, None, 110):
        set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=limit)
        warner.warn(gateway)
        assert told(owner_sql, quota.id) == expected
    set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=70)
    warner.warn(gateway)
    assert told(owner_sql, quota.id) == [("tokens_day", 50), ("tokens_day", 80)]


def test_warn_of_a_limit_of_nought_a_minute_or_generations_at_once_tells_nothing(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
) -> None:
    quota = set_quota(
        context=system_admin,
        tenant_id=tenant_a.id,
        tokens_day=0,
        tokens_minute=1,
        requests_minute=1,
        concurrency=1,
    )
    move(quota.id, tokens_minute_used=5, requests_minute_used=5, active=5)
    warner.warn(gateway)
    assert told(owner_sql, quota.id) == []


def test_warn_of_a_limit_near_the_largest_number_is_exact(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
) -> None:
    most = 2**63 - 1
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, cost_total=most)
    move(quota.id, cost_total_used=threshold(most, 80) - 1)
    warner.warn(gateway)
    assert told(owner_sql, quota.id) == [("cost_total", 50)]
    move(quota.id, cost_total_used=threshold(most, 80))
    warner.warn(gateway)
    assert told(owner_sql, quota.id) == [("cost_total", 50), ("cost_total", 80)]


# Midnight comes twice in Havana on this night, and clocks jump in Berlin on the other.
NIGHTS = [
    ("America/Havana", datetime(2026, 11, 1, 4, 30, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, 30, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 12, 0, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 29, 12, 0, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 3, 14, 18, 29, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 3, 14, 18, 31, tzinfo=UTC)),
]


@pytest.mark.parametrize(("zone", "now"), NIGHTS)
def test_warn_of_the_window_under_way_by_the_tenants_time_and_once_more_in_the_next(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
    zone: str,
    now: datetime,
) -> None:
    edit_tenant(context=system_admin, tenant_id=tenant_a.id, time_zone=zone)
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, requests_day=10)
    start = window_starts(now, zone)["day"]
    move(quota.id, requests_day_used=5, day_start=start - timedelta(days=1))
    warner.warn(gateway, now)
    assert told(owner_sql, quota.id) == []
    move(quota.id, day_start=start)
    warner.warn(gateway, now)
    assert told(owner_sql, quota.id) == [("requests_day", 50)]
    end = window_end(start, "day", zone)
    warner.warn(gateway, end)
    assert told(owner_sql, quota.id) == [("requests_day", 50)]
    move(quota.id, day_start=end)
    warner.warn(gateway, end)
    assert told(owner_sql, quota.id) == [("requests_day", 50)] * 2


def test_warn_writes_an_audit_event_for_each_warning(
    gateway: psycopg.Connection, owner_sql: psycopg.Connection, tenant_a: Organisation, move: Any
) -> None:
    key = api_key(tenant_a).api_key
    quota = set_quota(context=tenant_a.context, api_key_id=key.id, cost_month=10)
    move(quota.id, cost_month_used=6, cost_month_held=2)
    warner.warn(gateway)
    warner.warn(gateway)
    events = owner_sql.execute(
        "SELECT e.tenant_id, e.actor_type, e.object_label, b.detail->>'limit', "
        "(b.detail->>'level')::int, (b.detail->>'maximum')::int, (b.detail->>'taken')::int "
        "FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.action = 'quota.warn' AND e.object_id = %s ORDER BY 5",
        [str(quota.id)],
    ).fetchall()
    assert events == [
        (tenant_a.id, "system", str(key.id), "cost_month", level, 10, 8) for level in (50, 80)
    ]


def test_warn_by_many_at_once_tells_each_level_once(
    servers: SessionServers,
    owner_sql: psycopg.Connection,
    tenant_a: Organisation,
    move: Any,
) -> None:
    quotas = []
    for index in range(20):
        key = api_key(tenant_a, name=f"key {index}").api_key
        quota = set_quota(context=tenant_a.context, api_key_id=key.id, tokens_day=10, cost_total=10)
        move(quota.id, tokens_day_used=10, cost_total_held=8)
        quotas.append(quota.id)
    ready = threading.Barrier(4)
    faults: list[BaseException] = []

    def one_round() -> None:
        with psycopg.connect(servers.url("gateway"), autocommit=True) as connection:
            ready.wait(30)
            try:
                warner.warn(connection)
            except psycopg.Error as fault:
                faults.append(fault)

    threads = [threading.Thread(target=one_round) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    for quota_id in quotas:
        assert told(owner_sql, quota_id) == [
            ("cost_total", 50), ("cost_total", 80),
            ("tokens_day", 50), ("tokens_day", 80), ("tokens_day", 100),
        ]  # fmt: skip
    events = owner_sql.execute(
        "SELECT count(*) FROM audit_event WHERE action = 'quota.warn' AND tenant_id = %s",
        [tenant_a.id],
    ).fetchone()
    assert events == (100,)


def test_warn_waits_for_no_lock_that_admission_holds(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    servers: SessionServers,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
) -> None:
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=10)
    move(quota.id, tokens_day_used=10)
    gateway.execute("SET lock_timeout = '5s'")
    with psycopg.connect(servers.url("gateway")) as admission:
        admission.execute(
            "SELECT 1 FROM tenants_quotawindow WHERE quota_id = %s FOR NO KEY UPDATE", [quota.id]
        )
        warner.warn(gateway)
        assert [level for _, level in told(owner_sql, quota.id)] == [50, 80, 100]


def test_warn_in_more_than_one_batch_tells_everything(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warner, "_BATCH", 2)
    monkeypatch.setattr(warner, "CROSSED", warner.CROSSED.replace("LIMIT 1000", "LIMIT 2"))
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=1, cost_day=1)
    move(quota.id, tokens_day_used=1, cost_day_used=1)
    warner.warn(gateway)
    assert len(told(owner_sql, quota.id)) == 6


def test_warn_forgets_windows_that_are_long_past_but_no_total(
    gateway: psycopg.Connection,
    owner_sql: psycopg.Connection,
    system_admin: Context,
    tenant_a: Organisation,
    move: Any,
) -> None:
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=1, tokens_total=1)
    move(quota.id, tokens_day_used=1, tokens_total_used=1)
    warner.warn(gateway)
    owner_sql.execute(
        "UPDATE tenants_quotawarning SET warned_at = warned_at - interval '101 days' "
        "WHERE quota_id = %s",
        [quota.id],
    )
    move(quota.id, day_start=datetime.now(UTC) - timedelta(days=101))
    warner.warn(gateway)
    assert told(owner_sql, quota.id) == [("tokens_total", level) for level in LEVELS]


def test_run_the_task_warns(
    owner_sql: psycopg.Connection, system_admin: Context, tenant_a: Organisation, move: Any
) -> None:
    quota = set_quota(context=system_admin, tenant_id=tenant_a.id, requests_total=2)
    move(quota.id, requests_total_used=1)
    warn_of_quotas()
    assert told(owner_sql, quota.id) == [("requests_total", 50)]


@given(taken=st.integers(0, 2**63), limit=st.integers(1, 2**63 - 1))
def test_reach_a_level_by_its_exact_share(taken: int, limit: int) -> None:
    reached = [level for level in LEVELS if taken * 100 >= level * limit]
    assert level_reached(taken, limit) == (reached[-1] if reached else None)


@pytest.mark.parametrize("limit", [None, 0])
def test_reach_no_level_of_a_limit_without_shares(limit: int | None) -> None:
    assert level_reached(5, limit) is None
