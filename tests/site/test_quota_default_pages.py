"""The pages of default quotas, and what a quota's page says of where its limits come from."""

from collections.abc import Iterator

import pytest
from django.test import Client
from django.utils import translation

from portal.core.tenancy import tenant_scope
from tenants.models import Quota, QuotaDefault
from tenants.services import set_quota, set_quota_default
from tests.factories import Organisation, api_key
from tests.site.test_pages import client_of

LIST = "/admin/tenants/quotadefault/"


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    with translation.override("en"):
        yield


@pytest.fixture
def owner(tenant_a: Organisation) -> Client:
    return client_of(tenant_a.owner.user)


def test_list_without_any_says_what_one_does(owner: Client) -> None:
    assert "No default quota yet" in owner.get(LIST).content.decode()
    owner.cookies["django_language"] = "zh-hans"
    assert "还没有默认配额" in owner.get(LIST).content.decode()


def test_creating_changing_and_deleting_one_moves_the_limits_of_a_key(
    tenant_a: Organisation, owner: Client
) -> None:
    key = api_key(tenant_a).api_key
    sent = {"applies_to": "api_key", "requests_day": "1000", "cost_month": "2.5"}
    made = owner.post(f"{LIST}add/", sent)
    assert made.status_code == 302
    page = owner.get(made["Location"]).content.decode()
    assert "1,000" in page
    assert "2.5" in page
    with tenant_scope(tenant_a.context):
        quota = Quota.objects.get(api_key=key)
        default = QuotaDefault.objects.get()
    assert (quota.requests_day, quota.cost_month) == (1000, 2_500_000_000)
    assert owner.post(f"{LIST}{default.pk}/edit/", {"requests_day": "7"}).status_code == 302
    assert "Requests a day: 7" in owner.get(LIST).content.decode()
    assert owner.post(f"{LIST}{default.pk}/delete/", {}).status_code == 302
    with tenant_scope(tenant_a.context):
        after = Quota.objects.get(api_key=key)
    assert (after.requests_day, after.cost_month) == (None, None)


def test_page_of_a_quota_says_what_is_inherited_and_what_is_overridden(
    tenant_a: Organisation, owner: Client
) -> None:
    key = api_key(tenant_a).api_key
    set_quota_default(
        context=tenant_a.context, applies_to="api_key", requests_day=1000, tokens_day=2000
    )
    quota = set_quota(context=tenant_a.context, api_key_id=key.pk, tokens_day=3000)
    page = owner.get(f"/admin/tenants/quota/{quota.pk}/").content.decode()
    assert "From the default for each API key: 1,000" in page
    assert "Set here, in the place of the default" in page
    assert "2,000" in page
    form = owner.get(f"/admin/tenants/quota/{quota.pk}/edit/").content.decode()
    assert "Empty follows the default: 1,000." in form
    assert 'value="3000"' in form
    assert 'value="1000"' not in form
    assert owner.post(f"/admin/tenants/quota/{quota.pk}/edit/", {}).status_code == 302
    with tenant_scope(tenant_a.context):
        again = Quota.objects.get(pk=quota.pk)
    assert (again.tokens_day, again.requests_day, again.own_limits) == (2000, 1000, [])
    assert "Default" in owner.get("/admin/tenants/quota/").content.decode()


def test_developer_sees_defaults_and_changes_none(tenant_a: Organisation) -> None:
    default = set_quota_default(context=tenant_a.context, applies_to="user", requests_day=1000)
    developer = client_of(tenant_a.developer.user)
    assert "1,000" in developer.get(LIST).content.decode()
    for form in ("add", f"{default.pk}/edit", f"{default.pk}/delete"):
        assert developer.post(f"{LIST}{form}/", {"requests_day": "1"}).status_code == 403
