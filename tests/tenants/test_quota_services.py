"""Limits: whose they are to set, and what is shown as used."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.core.actors import Context, TenantRole
from portal.core.errors import Forbidden, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants import querysets
from tenants.models import Quota
from tenants.selectors import quota_use
from tenants.services import delete_quota, set_quota
from tenants.warner import warn
from tenants.windows import window_starts
from tests.factories import Organisation, api_key


def own_quota(organisation: Organisation) -> Quota:
    with tenant_scope(organisation.context):
        return querysets.quotas(organisation.id).get(user=None, api_key=None, model_id=None)


def test_set_tenant_limits_by_the_platform_changes_its_only_row(
    system_admin: Context, tenant_a: Organisation
) -> None:
    set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=1000, concurrency=2)
    set_quota(context=system_admin, tenant_id=tenant_a.id, tokens_day=None, requests_minute=5)
    quota = own_quota(tenant_a)
    assert (quota.tokens_day, quota.concurrency, quota.requests_minute) == (None, 2, 5)


def test_set_tenant_limits_by_its_owner_is_forbidden(tenant_a: Organisation) -> None:
    with pytest.raises(Forbidden):
        set_quota(context=tenant_a.context, tokens_day=10**12)


def test_set_key_limits_by_the_owner_makes_row_and_window(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    key = api_key(tenant_a).api_key
    quota = set_quota(context=tenant_a.context, api_key_id=key.id, requests_day=3)
    assert quota.requests_day == 3
    row = owner_sql.execute(
        "SELECT active, requests_day_used FROM tenants_quotawindow WHERE quota_id = %s", [quota.id]
    ).fetchone()
    assert row == (0, 0)


def test_set_key_limits_again_keeps_the_counters(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    key = api_key(tenant_a).api_key
    first = set_quota(context=tenant_a.context, api_key_id=key.id, requests_day=3)
    owner_sql.execute(
        "UPDATE tenants_quotawindow SET requests_day_used = 2 WHERE quota_id = %s", [first.id]
    )
    second = set_quota(context=tenant_a.context, api_key_id=key.id, requests_day=4)
    assert second.id == first.id
    used = {use.name: use.used for use in quota_use(second).uses}
    assert used["requests_day"] == 2


@pytest.mark.parametrize("role", [TenantRole.DEVELOPER, TenantRole.VIEWER, TenantRole.AUDITOR])
def test_set_key_limits_by_anybody_but_the_owner_is_forbidden(
    tenant_a: Organisation, role: TenantRole
) -> None:
    key = api_key(tenant_a).api_key
    with pytest.raises(Forbidden):
        set_quota(context=tenant_a.member(role).context, api_key_id=key.id, requests_day=3)


def test_set_limits_of_another_tenants_key_or_user_is_not_found(
    tenant_a: Organisation, tenant_b: Organisation, owner_sql: psycopg.Connection
) -> None:
    key = api_key(tenant_b).api_key
    with pytest.raises(NotFound):
        set_quota(context=tenant_a.context, api_key_id=key.id, requests_day=0)
    with pytest.raises(NotFound):
        set_quota(context=tenant_a.context, user_id=tenant_b.owner.user.id, requests_day=0)
    with pytest.raises(NotFound):
        set_quota(
            context=tenant_a.context, tenant_id=tenant_b.id, api_key_id=key.id, requests_day=0
        )
    rows = owner_sql.execute(
        "SELECT count(*) FROM tenants_quota WHERE tenant_id = ANY(%s)", [[tenant_a.id, tenant_b.id]]
    ).fetchone()
    assert rows == (2,)


@pytest.mark.parametrize(
    "limits", [{}, {"tokens_week": 1}, {"tokens_day": -1}, {"tokens_day": 2**63}, {"id": 1}]
)
def test_set_limits_bad_input_is_refused(
    system_admin: Context, tenant_a: Organisation, limits: dict[str, int]
) -> None:
    with pytest.raises(Invalid):
        set_quota(context=system_admin, tenant_id=tenant_a.id, **limits)  # type: ignore[arg-type]


def _told_of_deletion(owner_sql: psycopg.Connection, quota: Quota) -> int:
    row = owner_sql.execute(
        "SELECT count(*) FROM audit_event WHERE action = 'quota.delete' AND object_id = %s",
        [str(quota.id)],
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_delete_quota_of_a_key_takes_its_window_and_its_warnings_and_tells_the_trail(
    tenant_a: Organisation, owner_sql: psycopg.Connection, gateway_sql: psycopg.Connection
) -> None:
    key = api_key(tenant_a).api_key
    quota = set_quota(context=tenant_a.context, api_key_id=key.id, requests_day=2)
    owner_sql.execute(
        "UPDATE tenants_quotawindow SET requests_day_used = 2 WHERE quota_id = %s", [quota.id]
    )
    warn(gateway_sql)
    delete_quota(context=tenant_a.context, quota_id=quota.id)
    for table in ("tenants_quotawindow", "tenants_quotawarning"):
        left = owner_sql.execute(
            f"SELECT count(*) FROM {table} WHERE quota_id = %s", [quota.id]
        ).fetchone()
        assert left == (0,), table
    assert _told_of_deletion(owner_sql, quota) == 1


@pytest.mark.parametrize("role", [TenantRole.DEVELOPER, TenantRole.VIEWER, TenantRole.AUDITOR])
def test_delete_quota_by_anybody_but_the_owner_is_forbidden(
    tenant_a: Organisation, owner_sql: psycopg.Connection, role: TenantRole
) -> None:
    key = api_key(tenant_a).api_key
    quota = set_quota(context=tenant_a.context, api_key_id=key.id, requests_day=2)
    with pytest.raises(Forbidden):
        delete_quota(context=tenant_a.member(role).context, quota_id=quota.id)
    assert _told_of_deletion(owner_sql, quota) == 0


def test_delete_quota_of_a_model_is_the_platforms_and_never_of_the_whole_tenant(
    system_admin: Context, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    model = set_quota(context=system_admin, tenant_id=tenant_a.id, model_id=uuid7(), requests_day=2)
    inside = replace(system_admin, tenant_id=tenant_a.id)
    with pytest.raises(Forbidden):
        delete_quota(context=tenant_a.context, quota_id=model.id)
    with pytest.raises(Invalid):
        delete_quota(context=inside, quota_id=own_quota(tenant_a).id)
    delete_quota(context=inside, quota_id=model.id)
    assert _told_of_deletion(owner_sql, model) == 1
    with pytest.raises(NotFound):
        delete_quota(context=inside, quota_id=model.id)


def test_show_use_counts_charged_and_held_of_the_present_windows_only(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1, minutes=1)
    owner_sql.execute(
        "UPDATE tenants_quotawindow SET tokens_total_used = 5, tokens_total_held = 7, "
        "tokens_day_used = 9, day_start = %s, active = 3 WHERE tenant_id = %s",
        [yesterday, tenant_a.id],
    )
    used = {use.name: use.used for use in quota_use(own_quota(tenant_a)).uses}
    assert (used["tokens_total"], used["tokens_day"], used["concurrency"]) == (12, 0, 3)


ZONES = ["UTC", "Asia/Shanghai", "Asia/Kolkata", "America/New_York", "Pacific/Kiritimati"]


@given(
    now=st.integers(1_577_836_800, 2_208_988_800).map(lambda s: datetime.fromtimestamp(s, UTC)),
    zone=st.sampled_from(ZONES),
)
def test_begin_windows_before_now_and_nested(now: datetime, zone: str) -> None:
    starts = window_starts(now, zone)
    assert starts["month"] <= starts["day"] <= now
    assert now - starts["minute"] < timedelta(minutes=1)
    assert now - starts["day"] < timedelta(hours=25, minutes=1)
    assert now - starts["month"] < timedelta(days=31, hours=2)
    assert window_starts(starts["day"], zone)["day"] == starts["day"]
    assert window_starts(starts["month"], zone)["month"] == starts["month"]
