"""The pages of API keys: networks, rotation, last use."""

import html

import psycopg
import pytest
from django.test import Client

from portal.core.actors import ANONYMOUS, Context
from portal.core.errors import PortalError
from portal.core.tenancy import tenant_scope
from tenants.identity.keys import authenticate_api_key
from tenants.models import ApiKey
from tenants.services import create_playground_key, revoke_api_key, rotate_api_key
from tests import factories
from tests.factories import Organisation
from tests.site.test_pages import client_of

STRANGER = Context(actor=ANONYMOUS, address="192.0.2.1")


@pytest.fixture
def owner(tenant_a: Organisation) -> Client:
    return client_of(tenant_a.owner.user)


def path_of(key: ApiKey, page: str = "") -> str:
    return f"/admin/tenants/apikey/{key.pk}/{page}"


def opens(token: str) -> bool:
    try:
        authenticate_api_key(token, base=STRANGER)
    except PortalError:
        return False
    return True


def test_creating_a_key_with_networks_one_a_line_or_by_commas_keeps_them(
    tenant_a: Organisation, owner: Client
) -> None:
    sent = {
        "name": "Bound",
        "scopes": ["inference"],
        "allowed_networks": "192.0.2.0/24,2001:db8::/32\r\n 10.0.0.0/8 ",
    }
    assert owner.post("/admin/tenants/apikey/add/", sent).status_code == 200
    with tenant_scope(tenant_a.context):
        key = ApiKey.objects.get(name="Bound")
    assert key.allowed_networks == ["192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8"]
    page = owner.get(path_of(key)).content.decode()
    assert "192.0.2.0/24, 2001:db8::/32, 10.0.0.0/8" in page
    form = owner.get(path_of(key, "networks/")).content.decode()
    assert "192.0.2.0/24\n2001:db8::/32\n10.0.0.0/8" in form


def test_saving_a_bad_network_is_refused_beside_the_field_and_keeps_what_was_typed(
    tenant_a: Organisation, owner: Client
) -> None:
    key = factories.api_key(tenant_a).api_key
    owner.cookies["django_language"] = "zh-hans"
    answer = owner.post(path_of(key, "networks/"), {"allowed_networks": "10.0.0.1/8"})
    page = html.unescape(answer.content.decode())
    assert answer.status_code == 400
    assert "请写 10.0.0.0/8" in page
    assert "10.0.0.1/8</textarea>" in page


def test_saving_networks_then_emptying_them(tenant_a: Organisation, owner: Client) -> None:
    key = factories.api_key(tenant_a).api_key
    for typed, stored in (("192.0.2.7", ["192.0.2.7/32"]), ("", None)):
        answer = owner.post(path_of(key, "networks/"), {"allowed_networks": typed})
        assert (answer.status_code, answer["Location"]) == (302, path_of(key))
        with tenant_scope(tenant_a.context):
            assert ApiKey.objects.get(pk=key.pk).allowed_networks == stored


def test_rotating_asks_for_the_overlap_and_shows_the_new_secret_once(
    tenant_a: Organisation, owner: Client
) -> None:
    made = factories.api_key(tenant_a)
    key = made.api_key
    asked = owner.get(path_of(key, "rotate/")).content.decode()
    assert '<option value="86400" selected>' in asked
    answer = owner.post(path_of(key, "rotate/"), {"overlap_seconds": "3600"})
    token = answer.content.decode().split('<code id="secret">')[1].split("<")[0]
    assert answer.status_code == 200
    assert opens(token)
    assert opens(made.token)
    for page in (path_of(key), path_of(key, "rotate/"), "/admin/tenants/apikey/"):
        assert token not in owner.get(page).content.decode()


def test_rotating_at_once_ends_the_old_secret(tenant_a: Organisation, owner: Client) -> None:
    made = factories.api_key(tenant_a)
    answer = owner.post(path_of(made.api_key, "rotate/"), {"overlap_seconds": "0"})
    assert answer.status_code == 200
    assert not opens(made.token)


@pytest.mark.parametrize("overlap", ["", "-1", "7", "x", "99999999999"])
def test_rotating_with_another_overlap_than_offered_changes_nothing(
    tenant_a: Organisation, owner: Client, overlap: str
) -> None:
    made = factories.api_key(tenant_a)
    answer = owner.post(path_of(made.api_key, "rotate/"), {"overlap_seconds": overlap})
    assert answer.status_code == 400
    with tenant_scope(tenant_a.context):
        assert ApiKey.objects.get(pk=made.api_key.pk).generation == 1


def test_changing_a_key_belongs_to_the_maker_or_the_owner(tenant_a: Organisation) -> None:
    key = factories.api_key(tenant_a).api_key
    sent = {"rotate/": {"overlap_seconds": "0"}, "networks/": {"allowed_networks": "::/0"}}
    for page, data in sent.items():
        for person in (tenant_a.developer, tenant_a.viewer):
            assert client_of(person.user).post(path_of(key, page), data).status_code == 403
            assert page not in client_of(person.user).get(path_of(key)).content.decode()
        assert page in client_of(tenant_a.owner.user).get(path_of(key)).content.decode()


def test_changing_a_key_that_is_revoked_or_a_playgrounds_is_not_offered(
    tenant_a: Organisation, owner: Client
) -> None:
    revoked = factories.api_key(tenant_a).api_key
    revoke_api_key(context=tenant_a.context, api_key_id=revoked.pk, reason="x")
    bound = create_playground_key(context=tenant_a.context, session_key="s").api_key
    for key in (revoked, bound):
        for page in ("rotate/", "networks/"):
            assert owner.get(path_of(key, page)).status_code == 404


def test_page_of_a_rotated_key_tells_whether_the_former_secret_is_still_used(
    tenant_a: Organisation, owner: Client, owner_sql: psycopg.Connection
) -> None:
    made = factories.api_key(tenant_a)
    key = made.api_key
    rotate_api_key(context=tenant_a.context, api_key_id=key.pk)
    assert facts(owner, key)["Former secret last used"] == "Never"
    assert opens(made.token)
    told = facts(owner, key)
    assert told["Secret"] == "Generation 2"
    assert told["Last used"] == "Not yet"
    assert told["Former secret last used"] != "Never"
    assert told["Former secret works until"] != "It has ended"
    assert "former secret:" in owner.get("/admin/tenants/apikey/").content.decode()
    owner_sql.execute("UPDATE tenants_apikey SET former_until = now() WHERE id = %s", [key.pk])
    assert facts(owner, key)["Former secret works until"] == "It has ended"
    assert "former secret:" not in owner.get("/admin/tenants/apikey/").content.decode()


def facts(client: Client, key: ApiKey) -> dict[str, str]:
    """What the page of a key says, by label."""
    page = html.unescape(client.get(path_of(key)).content.decode())
    pairs = [part.split("</dd>")[0] for part in page.split("<dt>")[1:]]
    return dict(tuple(pair.split("</dt><dd>")) for pair in pairs)  # type: ignore[misc]
