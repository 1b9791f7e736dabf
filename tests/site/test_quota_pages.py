"""What the pages say of limits: the level that is reached, and the warnings of it."""

from datetime import datetime
from typing import Any

import psycopg
import pytest
from django.test import Client

from portal.core.actors import PlatformRole
from tenants import warner
from tenants.models import Quota
from tenants.services import set_quota
from tests import factories
from tests.factories import Organisation, api_key
from tests.site.test_pages import client_of

EMPTY = "Nothing to warn of"


def used(owner_sql: psycopg.Connection, quota: Quota, tokens: int, **starts: datetime) -> None:
    """Charges tokens to the day of a quota."""
    owner_sql.execute(
        "UPDATE tenants_quotawindow SET tokens_day_used = %s, "
        "day_start = coalesce(%s, day_start) WHERE quota_id = %s",
        [tokens, starts.get("day_start"), quota.pk],
    )


@pytest.fixture
def quota(tenant_a: Organisation) -> Quota:
    key = api_key(tenant_a, name="the till").api_key
    return set_quota(context=tenant_a.context, api_key_id=key.pk, tokens_day=1000)


@pytest.mark.parametrize(
    ("tokens", "words", "colour"),
    [
        (0, "Below 50 %", "fh-label-default"),
        (500, "50 % reached", "fh-label-info"),
        (800, "80 % reached", "fh-label-warning"),
        (1000, "Limit reached", "fh-label-danger"),
    ],
)
def test_pages_of_a_quota_say_the_level_in_words_and_in_colour(
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
    quota: Quota,
    tokens: int,
    words: str,
    colour: str,
) -> None:
    used(owner_sql, quota, tokens)
    client = client_of(tenant_a.owner.user)
    assert words in client.get("/admin/tenants/quota/").content.decode()
    page = client.get(f"/admin/tenants/quota/{quota.pk}/").content.decode()
    assert (f'{colour}">{words}</span>' in page) == (tokens > 0)


def test_overview_of_a_tenant_shows_the_warnings_of_windows_under_way_alone(
    tenant_a: Organisation,
    tenant_b: Organisation,
    owner_sql: psycopg.Connection,
    gateway_sql: psycopg.Connection,
    quota: Quota,
) -> None:
    client, other = client_of(tenant_a.owner.user), client_of(tenant_b.owner.user)
    assert EMPTY in client.get("/admin/").content.decode()
    used(owner_sql, quota, 850)
    warner.warn(gateway_sql)
    page = client.get("/admin/").content.decode()
    assert EMPTY not in page
    assert page.count("80 % reached") == 1
    assert "50 % reached" not in page
    assert "850 of 1,000" in page
    assert f"/admin/tenants/quota/{quota.pk}/" in page
    assert EMPTY in other.get("/admin/").content.decode()
    owner_sql.execute(
        "UPDATE tenants_quotawarning SET window_start = window_start - interval '1 day' "
        "WHERE quota_id = %s",
        [quota.pk],
    )
    assert EMPTY in client.get("/admin/").content.decode()


def test_overview_of_the_platform_shows_warnings_of_whole_tenants_alone(
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
    gateway_sql: psycopg.Connection,
    quota: Quota,
) -> None:
    own = set_quota(context=factories.TESTS, tenant_id=tenant_a.id, tokens_day=1000)
    used(owner_sql, own, 1000)
    used(owner_sql, quota, 1000)
    warner.warn(gateway_sql)
    system = client_of(factories.administrator(PlatformRole.SYSTEM).user)
    lines = system.get("/admin/").context["warnings"]
    mine = [line for line in lines if line.warning.tenant_id == tenant_a.id]
    assert [(line.warning.quota_id, line.level) for line in mine] == [(own.pk, "Limit reached")]
    security = client_of(factories.administrator(PlatformRole.SECURITY).user)
    assert "Quota warnings" not in security.get("/admin/").content.decode()


def test_overview_in_chinese_says_levels_in_chinese(
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
    gateway_sql: psycopg.Connection,
    quota: Quota,
) -> None:
    used(owner_sql, quota, 800)
    warner.warn(gateway_sql)
    client = client_of(tenant_a.owner.user)
    page = client.get("/admin/", headers={"accept-language": "zh-hans"}).content.decode()
    assert "已达 80 %" in page
    assert "配额警告" in page


def _delete_page(client: Client, quota: Quota) -> Any:
    return client.post(f"/admin/tenants/quota/{quota.pk}/delete/", {})


def test_deleting_a_quota_is_for_the_owner_and_never_of_the_tenants_own(
    tenant_a: Organisation, quota: Quota
) -> None:
    developer, owner = client_of(tenant_a.developer.user), client_of(tenant_a.owner.user)
    own = set_quota(context=factories.TESTS, tenant_id=tenant_a.id, tokens_day=1000)
    assert _delete_page(developer, quota).status_code == 403
    assert _delete_page(owner, own).status_code == 403
    entered = client_of(factories.administrator(PlatformRole.SYSTEM).user)
    entered.post(f"/admin/tenants/tenant/{tenant_a.id}/enter/", {"reason": "limits"})
    assert _delete_page(entered, own).status_code == 404
    assert _delete_page(owner, quota).status_code == 302
    assert owner.get(f"/admin/tenants/quota/{quota.pk}/").status_code == 404
