"""The pages of service accounts."""

from collections.abc import Iterator

import psycopg
import pytest
from django.test import Client
from django.utils import translation

from portal.core.actors import ANONYMOUS, Context
from portal.core.tenancy import tenant_scope
from tenants.identity.keys import authenticate_api_key
from tenants.models import ServiceAccount
from tenants.services import create_api_key, create_service_account, retire_service_account
from tests.factories import Organisation
from tests.site.test_pages import client_of

LIST = "/admin/tenants/serviceaccount/"
STRANGER = Context(actor=ANONYMOUS, address="192.0.2.1")


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    with translation.override("en"):
        yield


@pytest.fixture
def owner(tenant_a: Organisation) -> Client:
    return client_of(tenant_a.owner.user)


@pytest.fixture
def account(tenant_a: Organisation) -> ServiceAccount:
    return create_service_account(context=tenant_a.context, name="Invoice reader")


def test_list_without_any_says_what_one_is_for(owner: Client) -> None:
    page = owner.get(LIST).content.decode()
    assert "No service account yet" in page
    owner.cookies["django_language"] = "zh-hans"
    assert "还没有服务账号" in owner.get(LIST).content.decode()


def test_creating_one_then_giving_it_a_key_shows_the_secret_once(
    tenant_a: Organisation, owner: Client
) -> None:
    sent = {"name": "Reader", "responsible_id": str(tenant_a.developer.user.id)}
    answer = owner.post(f"{LIST}add/", sent)
    assert answer.status_code == 302
    with tenant_scope(tenant_a.context):
        account = ServiceAccount.objects.get()
    assert "no key yet" in owner.get(answer["Location"]).content.decode()
    made = owner.post(f"{LIST}{account.pk}/key/", {"name": "till", "scopes": ["inference"]})
    token = made.content.decode().split('<code id="secret">')[1].split("<")[0]
    assert authenticate_api_key(token, base=STRANGER).user_id == account.pk
    page = owner.get(answer["Location"]).content.decode()
    assert "till" in page
    assert token not in page
    assert "Service account Reader" in owner.get("/admin/tenants/apikey/").content.decode()
    assert "Reader" in owner.get("/admin/tenants/quota/add/").content.decode()
    assert "Reader" not in owner.get("/admin/tenants/membership/").content.decode()


def test_disable_enable_edit_and_retire_lead_back_to_the_account(
    tenant_a: Organisation, owner: Client, account: ServiceAccount
) -> None:
    path = f"{LIST}{account.pk}/"
    changed = {"name": "Renamed", "responsible_id": str(tenant_a.owner.user.id)}
    for form, sent, word in (
        ("edit", changed, "Renamed"),
        ("disable", {"reason": "leak"}, "Disabled"),
        ("enable", {"reason": "none"}, "Active"),
        ("retire", {}, "Retired"),
    ):
        assert owner.get(f"{path}{form}/").status_code == 200
        answer = owner.post(f"{path}{form}/", sent)
        assert (answer.status_code, answer["Location"]) == (302, path)
        assert word in owner.get(path).content.decode()
    for form in ("key", "edit", "disable", "enable", "retire"):
        assert owner.post(f"{path}{form}/", {}).status_code == 404
    for state, shown in (("active", False), ("retired", True)):
        assert ("Renamed" in owner.get(f"{LIST}?state={state}").content.decode()) == shown


def test_event_of_its_key_tells_the_auditor_whose_the_key_is(
    tenant_a: Organisation, account: ServiceAccount, owner_sql: psycopg.Connection
) -> None:
    made = create_api_key(
        context=tenant_a.context, name="t", scopes=["keys:read"], service_account_id=account.pk
    )
    answer = Client().get("/api/v1/keys", headers={"Authorization": f"Bearer {made.token}"})
    assert answer.status_code == 200
    row = owner_sql.execute(
        "SELECT id FROM audit_event WHERE api_key_id = %s AND category = 'call' LIMIT 1",
        [made.api_key.pk],
    ).fetchone()
    assert row is not None
    page = client_of(tenant_a.auditor.user).get(f"/admin/audit/auditevent/{row[0]}/")
    assert "Service account Invoice reader" in page.content.decode()


def test_developer_sees_them_and_changes_nothing(
    tenant_a: Organisation, account: ServiceAccount
) -> None:
    developer = client_of(tenant_a.developer.user)
    assert account.name in developer.get(LIST).content.decode()
    assert client_of(tenant_a.auditor.user).get(LIST).status_code == 403
    for form in ("add", f"{account.pk}/key", f"{account.pk}/retire"):
        assert developer.post(f"{LIST}{form}/", {"name": "x"}).status_code == 403


def test_taking_a_name_again_is_refused_beside_the_field_in_chinese(
    tenant_a: Organisation, owner: Client, account: ServiceAccount
) -> None:
    owner.cookies["django_language"] = "zh-hans"
    sent = {"name": account.name, "responsible_id": str(tenant_a.owner.user.id)}
    answer = owner.post(f"{LIST}add/", sent)
    assert answer.status_code == 409
    assert "已经有服务账号" in answer.content.decode()
    retire_service_account(context=tenant_a.context, service_account_id=account.pk)
    assert owner.post(f"{LIST}add/", sent).status_code == 302
