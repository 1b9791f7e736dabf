"""Pages of the admin site, asked over HTTP as people of each role."""

from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from inference.models import Deployment
from portal.core.actors import PlatformRole
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey, Membership, Quota, User
from tenants.services.quotas import set_quota
from tests import factories
from tests.factories import Organisation
from tests.live import deploy
from tests.servers import SessionServers


def client_of(user: User) -> Client:
    """A browser in which the user is logged in."""
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def owner(tenant_a: Organisation) -> Client:
    return client_of(tenant_a.owner.user)


@pytest.fixture
def administrator(database: None) -> Callable[[PlatformRole], Client]:
    return lambda role: client_of(factories.administrator(role).user)


def test_opening_any_page_without_log_in_leads_to_the_log_in(database: None) -> None:
    answer = Client().get("/admin/tenants/apikey/")
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")


def test_pages_carry_a_policy_that_allows_no_other_origin(owner: Client) -> None:
    policy = owner.get("/admin/")["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "script-src 'self' 'unsafe-inline'" not in policy


def test_pages_hold_no_inline_script_of_ours(owner: Client) -> None:
    page = owner.get("/admin/playground/").content.decode()
    scripts = page.split("<script")[1:]
    assert scripts
    assert all("src=" in s.split(">")[0] or 'type="application/json"' in s for s in scripts)


def test_creating_a_key_without_a_scope_is_refused_and_keeps_what_was_typed(owner: Client) -> None:
    answer = owner.post("/admin/tenants/apikey/add/", {"name": "Warehouse"})
    assert answer.status_code == 400
    assert b'value="Warehouse"' in answer.content


def test_creating_a_key_ignores_scopes_that_the_role_may_not_hand_on(
    tenant_a: Organisation,
) -> None:
    client = client_of(tenant_a.developer.user)
    answer = client.post(
        "/admin/tenants/apikey/add/", {"name": "Sly", "scopes": ["keys:write", "inference"]}
    )
    assert answer.status_code == 400
    with tenant_scope(tenant_a.context):
        assert not ApiKey.objects.filter(name="Sly").exists()


def test_revoking_belongs_to_the_maker_or_the_owner(tenant_a: Organisation) -> None:
    key = factories.api_key(tenant_a).api_key
    path = f"/admin/tenants/apikey/{key.pk}/revoke/"
    assert client_of(tenant_a.developer.user).post(path, {"reason": "x"}).status_code == 403
    assert client_of(tenant_a.viewer.user).post(path, {"reason": "x"}).status_code == 403
    assert client_of(tenant_a.owner.user).post(path, {"reason": "x"}).status_code == 302
    with tenant_scope(tenant_a.context):
        assert ApiKey.objects.get(pk=key.pk).revoked_reason == "x"
    assert client_of(tenant_a.owner.user).get(path).status_code == 404


def test_removing_the_last_owner_is_refused_in_words(tenant_a: Organisation, owner: Client) -> None:
    with tenant_scope(tenant_a.context):
        last = Membership.objects.get(user=tenant_a.owner.user)
    answer = owner.post(f"/admin/tenants/membership/{last.pk}/remove/")
    assert answer.status_code == 409
    assert "A tenant needs an owner" in answer.content.decode()
    with tenant_scope(tenant_a.context):
        assert Membership.objects.filter(pk=last.pk).exists()


def test_refusals_are_told_in_the_readers_language(tenant_a: Organisation, owner: Client) -> None:
    owner.cookies["django_language"] = "zh-hans"
    answer = owner.post(
        "/admin/tenants/membership/add/", {"email": tenant_a.viewer.user.email, "role": "viewer"}
    )
    assert answer.status_code == 409
    assert "已是成员" in answer.content.decode()


def test_adding_a_member_shows_the_made_password_once(owner: Client) -> None:
    email = f"{factories.unique('new')}@example.test"
    answer = owner.post("/admin/tenants/membership/add/", {"email": email, "role": "viewer"})
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    password = page.split('<code id="secret">')[1].split("<")[0]
    assert Client().login(username=email, password=password)
    assert password not in owner.get("/admin/tenants/membership/").content.decode()


def test_tenants_own_limits_are_the_platforms_to_change(
    tenant_a: Organisation, owner: Client
) -> None:
    with tenant_scope(tenant_a.context):
        whole = Quota.objects.get(user=None, api_key=None)
    path = f"/admin/tenants/quota/{whole.pk}/edit/"
    assert owner.post(path, {"tokens_day": 5}).status_code == 403
    client = client_of(factories.administrator(PlatformRole.SYSTEM).user)
    entered = client.post(f"/admin/tenants/tenant/{tenant_a.id}/enter/", {"reason": "limits"})
    assert entered.status_code == 302
    assert client.post(path, {"tokens_day": 5, "cost_month": "1.5"}).status_code == 302
    with tenant_scope(tenant_a.context):
        whole.refresh_from_db()
    assert (whole.tokens_day, whole.cost_month) == (5, 1_500_000_000)


def test_changing_limits_again_keeps_every_cost_to_the_nano_unit(tenant_a: Organisation) -> None:
    quota = set_quota(
        context=factories.TESTS, tenant_id=tenant_a.id, cost_total=9_007_199_254_740_993
    )
    client = client_of(factories.administrator(PlatformRole.SYSTEM).user)
    client.post(f"/admin/tenants/tenant/{tenant_a.id}/enter/", {"reason": "limits"})
    path = f"/admin/tenants/quota/{quota.pk}/edit/"
    form = client.get(path).context["form"]
    typed = {n: form[n].value() for n in form.fields if form[n].value() is not None}
    assert client.post(path, typed).status_code == 302
    with tenant_scope(tenant_a.context):
        quota.refresh_from_db()
    assert quota.cost_total == 9_007_199_254_740_993


def test_entering_a_tenant_takes_a_reason(
    tenant_a: Organisation, administrator: Callable[[PlatformRole], Client]
) -> None:
    client = administrator(PlatformRole.SYSTEM)
    path = f"/admin/tenants/tenant/{tenant_a.id}/enter/"
    assert client.post(path, {"reason": ""}).status_code == 400
    assert client.get("/admin/tenants/apikey/").status_code == 403


def test_audit_administrator_may_not_enter_a_tenant(
    tenant_a: Organisation, administrator: Callable[[PlatformRole], Client]
) -> None:
    client = administrator(PlatformRole.AUDIT)
    path = f"/admin/tenants/tenant/{tenant_a.id}/enter/"
    assert client.post(path, {"reason": "curious"}).status_code == 403


def test_creating_a_tenant_shows_the_first_owners_password(
    administrator: Callable[[PlatformRole], Client],
) -> None:
    slug = factories.unique("fresh")
    answer = administrator(PlatformRole.SYSTEM).post(
        "/admin/tenants/tenant/add/",
        {
            "name": "Fresh",
            "slug": slug,
            "time_zone": "Asia/Shanghai",
            "owner_email": f"owner@{slug}.test",
        },
    )
    page = answer.content.decode()
    password = page.split('<code id="secret">')[1].split("<")[0]
    assert Client().login(username=f"owner@{slug}.test", password=password)


def test_taken_short_name_is_told_beside_its_field(
    tenant_a: Organisation, administrator: Callable[[PlatformRole], Client]
) -> None:
    answer = administrator(PlatformRole.SYSTEM).post(
        "/admin/tenants/tenant/add/",
        {
            "name": "Twin",
            "slug": tenant_a.tenant.slug,
            "time_zone": "UTC",
            "owner_email": "o@twin.test",
        },
    )
    assert answer.status_code == 409
    assert answer.context["form"].errors["slug"]


def test_reading_the_trail_is_recorded_with_filter_and_rows(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    client = client_of(tenant_a.auditor.user)
    answer = client.get("/admin/audit/auditevent/", {"action": "member.add", "outcome": "success"})
    row = owner_sql.execute(
        "SELECT b.detail FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.tenant_id = %s AND e.action = 'audit.list' AND e.actor_id = %s",
        [tenant_a.id, tenant_a.auditor.user.id],
    ).fetchone()
    assert row is not None
    assert row[0]["filter"] == {"action": "member.add", "outcome": "success"}
    assert row[0]["rows"] == len(answer.context["events"]) == 3


def test_auditor_sees_the_own_tenants_events_alone(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    client = client_of(tenant_a.auditor.user)
    events = client.get("/admin/audit/auditevent/").context["events"]
    assert {event.tenant_id for event in events} == {tenant_a.id}
    theirs = client_of(tenant_b.auditor.user).get("/admin/audit/auditevent/").context["events"]
    assert client.get(f"/admin/audit/auditevent/{theirs[0].pk}/").status_code == 404


def test_paging_through_the_trail_shows_each_event_once(tenant_a: Organisation) -> None:
    client = client_of(tenant_a.auditor.user)
    for _ in range(30):
        client.get("/admin/")
    seen: list[UUID] = []
    query = "category=call"
    while query:
        context = client.get(f"/admin/audit/auditevent/?{query}").context
        seen += [event.pk for event in context["events"]]
        query = context.get("next_page", "")
    assert len(seen) > 60
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    "before", ["x", "2026-01-01_x", "2026-01-01T00:00:00_0198a000-0000-7000-8000-000000000000"]
)
def test_malformed_position_in_the_trail_is_refused(tenant_a: Organisation, before: str) -> None:
    client = client_of(tenant_a.auditor.user)
    assert client.get("/admin/audit/auditevent/", {"before": before}).status_code == 400


def test_event_of_a_change_shows_before_and_after(tenant_a: Organisation, owner: Client) -> None:
    with tenant_scope(tenant_a.context):
        viewer = Membership.objects.get(user=tenant_a.viewer.user)
    owner.post(f"/admin/tenants/membership/{viewer.pk}/role/", {"role": "developer"})
    client = client_of(tenant_a.auditor.user)
    query = {"action": "tenants.membership.update", "subject": str(viewer.pk)}
    event = client.get("/admin/audit/auditevent/", query).context["events"][0]
    page = client.get(f"/admin/audit/auditevent/{event.pk}/")
    changes = page.context["changes"]
    assert [(c.field, c.before, c.after) for c in changes] == [("role", "viewer", "developer")]


def test_admin_pages_write_nothing_to_djangos_own_log(
    owner: Client, owner_sql: psycopg.Connection
) -> None:
    made = owner.post("/admin/tenants/apikey/add/", {"name": "Logged", "scopes": ["inference"]})
    assert made.status_code == 200
    found = owner_sql.execute("SELECT to_regclass('django_admin_log')").fetchone()
    assert found is not None
    if found[0] is not None:
        count = owner_sql.execute("SELECT count(*) FROM django_admin_log").fetchone()
        assert count == (0,)


def test_changing_the_password_is_recorded_without_it(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    client = client_of(tenant_a.owner.user)
    answer = client.post(
        "/admin/password_change/",
        {
            "old_password": tenant_a.owner.password,
            "new_password1": "seven green bottles",
            "new_password2": "seven green bottles",
        },
    )
    assert answer.status_code == 302
    assert Client().login(username=tenant_a.owner.user.email, password="seven green bottles")
    rows = owner_sql.execute(
        "SELECT e.action, b.after FROM audit_event e LEFT JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.object_id = %s AND e.actor_id = %s AND e.action IN "
        "('user.change_password', 'tenants.user.update')",
        [str(tenant_a.owner.user.id), tenant_a.owner.user.id],
    ).fetchall()
    assert {action for action, _after in rows} == {"user.change_password", "tenants.user.update"}
    assert "seven green" not in str(rows)
    assert "scrypt" not in str(rows)


def test_asking_for_a_playground_key_needs_the_role_and_a_csrf_token(
    tenant_a: Organisation,
) -> None:
    viewer = client_of(tenant_a.viewer.user).post("/admin/playground/key")
    assert viewer.status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(tenant_a.developer.user)
    assert strict.post("/admin/playground/key").status_code == 403
    made = client_of(tenant_a.developer.user).post("/admin/playground/key")
    assert made.json()["token"].startswith("fh_")
    assert "no-store" in made["Cache-Control"]


def test_choosing_a_tenant_of_others_gives_404(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    client = client_of(tenant_a.owner.user)
    for wanted in (str(tenant_b.id), "no-id", ""):
        assert client.post("/admin/tenant/choose/", {"tenant": wanted}).status_code == 404


def test_form_without_its_token_is_refused_in_words(database: None) -> None:
    answer = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "a"})
    assert answer.status_code == 403
    assert "This form has grown too old" in answer.content.decode()


def test_disabling_a_deployment_takes_the_role_and_holds(
    tenant_a: Organisation,
    servers: SessionServers,
    administrator: Callable[[PlatformRole], Client],
) -> None:
    name = deploy(servers, factories.unique("switched")).deployment
    deployment = Deployment.objects.get(name=name)
    path = f"/admin/inference/deployment/{deployment.pk}/disable/"
    assert client_of(tenant_a.owner.user).post(path).status_code == 403
    assert administrator(PlatformRole.SECURITY).post(path).status_code == 403
    system = administrator(PlatformRole.SYSTEM)
    assert system.post(path).status_code == 302
    deployment.refresh_from_db()
    assert not deployment.enabled
    assert system.post(path).status_code == 404
    detail = system.get(f"/admin/inference/deployment/{deployment.pk}/")
    assert detail.context["health"].text == "Disabled"


def test_listing_keys_asks_no_more_of_the_database_for_more_keys(
    tenant_a: Organisation, owner: Client
) -> None:
    owner.get("/admin/tenants/apikey/")  # The first page of a session also settles the session.
    counts = []
    for _ in range(2):
        for _ in range(4):
            factories.api_key(tenant_a)
        with CaptureQueriesContext(connection) as asked:
            assert owner.get("/admin/tenants/apikey/").status_code == 200
        counts.append(len(asked))
    assert counts[0] == counts[1]
