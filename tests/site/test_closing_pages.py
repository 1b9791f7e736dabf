"""The pages of closing a tenant: forms, progress, export, certificate."""

import hashlib
import json

import psycopg
import pytest
from django.test import Client

from portal.core.actors import PlatformRole
from tenants.services import newest_export
from tests import factories
from tests.factories import Organisation
from tests.site.test_pages import client_of
from tests.tenants.closings import close, finish, finished_export, full_tenant, made_export


@pytest.fixture
def system(database: None) -> Client:
    return client_of(factories.administrator(PlatformRole.SYSTEM).user)


def page_of(tenant: Organisation, name: str = "") -> str:
    return f"/admin/tenants/tenant/{tenant.id}/{name}"


def test_close_page_wants_the_tenants_name(tenant_a: Organisation, system: Client) -> None:
    form = {"reason": "the contract ended", "name": "another", "grace_days": "30"}
    assert 'value="30"' in system.get(page_of(tenant_a, "close/")).content.decode()
    refused = system.post(page_of(tenant_a, "close/"), form)
    assert refused.status_code == 400
    assert "type it exactly" in refused.content.decode()
    form["name"] = tenant_a.tenant.name
    assert system.post(page_of(tenant_a, "close/"), form).status_code == 302
    page = system.get(page_of(tenant_a)).content.decode()
    assert "This tenant is closing" in page
    assert "the contract ended" in page
    assert "Nothing has been erased yet." in page
    assert page_of(tenant_a, "reopen/") in page
    for gone in ("close/", "edit/", "suspend/"):
        assert page_of(tenant_a, gone) not in page
        assert system.get(page_of(tenant_a, gone)).status_code == 404


def test_reopen_page_takes_the_closing_back(tenant_a: Organisation, system: Client) -> None:
    close(tenant_a, grace_days=30)
    assert system.post(page_of(tenant_a, "reopen/"), {"reason": "a mistake"}).status_code == 302
    page = system.get(page_of(tenant_a)).content.decode()
    assert "This tenant is closing" not in page
    assert page_of(tenant_a, "close/") in page


@pytest.mark.parametrize(
    ("language", "words"), [("en", "Certificate of deletion"), ("zh-hans", "删除证明")]
)
def test_certificate_page_shows_digest_and_counts(
    system: Client, owner_sql: psycopg.Connection, language: str, words: str
) -> None:
    full = full_tenant(owner_sql, "certified")
    made_export(full)
    close(full.organisation)
    finish(full.id)
    system.cookies["django_language"] = language
    detail = system.get(page_of(full.organisation)).content.decode()
    assert page_of(full.organisation, "certificate/") in detail
    page = system.get(page_of(full.organisation, "certificate/")).content.decode()
    file = system.get(f"/api/v1/tenants/{full.id}/certificate")
    certificate = json.loads(file.content)
    document = certificate["certificate"]
    assert words in page
    for shown in (
        certificate["sha256"],
        document["kept"]["ledger"]["sha256"],
        document["kept"]["audit"]["sha256"],
        document["deletion"]["data_keys"][0]["sha256_of_wrapped"],
        document["exports"][0]["sha256"],
        "the contract ended",
    ):
        assert shown in page
    assert "tenants_apikey" not in page


def test_export_pages_of_an_owner_go_from_none_to_a_file(tenant_a: Organisation) -> None:
    owner = client_of(tenant_a.owner.user)
    base = "/admin/tenants/tenantexport/"
    assert "No export yet" in owner.get(base).content.decode()
    asked = owner.post(f"{base}add/")
    assert asked.status_code == 302
    export = newest_export(context=tenant_a.context, tenant_id=tenant_a.id)
    assert asked.headers["Location"] == f"{base}{export.pk}/"
    export = finished_export(tenant_a.context, tenant_a.id, export.pk)
    page = owner.get(f"{base}{export.pk}/").content.decode()
    assert export.sha256 in page
    assert f"{base}{export.pk}/file/" in page
    file = owner.get(f"{base}{export.pk}/file/")
    content = b"".join(file)
    assert hashlib.sha256(content).hexdigest() == export.sha256


def test_export_pages_are_closed_to_other_members(tenant_a: Organisation) -> None:
    for member in (tenant_a.developer, tenant_a.viewer, tenant_a.auditor):
        client = client_of(member.user)
        assert client.get("/admin/tenants/tenantexport/").status_code == 403
        assert client.post("/admin/tenants/tenantexport/add/").status_code == 403
        assert "tenantexport" not in client.get("/admin/", follow=True).content.decode()


def test_closing_tenant_lets_its_owner_read_and_export_alone(tenant_a: Organisation) -> None:
    close(tenant_a, grace_days=30)
    owner = client_of(tenant_a.owner.user)
    assert "This tenant is closing or closed" in owner.get("/admin/").content.decode()
    assert owner.get("/admin/tenants/apikey/").status_code == 200
    assert owner.get("/admin/tenants/apikey/add/").status_code == 403
    assert owner.get("/admin/tenants/tenantexport/add/").status_code == 200
    developer = client_of(tenant_a.developer.user)
    assert developer.get("/admin/", follow=True).redirect_chain[-1][0] == "/admin/memberships/"
