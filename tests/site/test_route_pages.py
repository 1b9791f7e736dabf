"""Pages of routes: the system administrator's, and nobody else's."""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from django.test import Client

from inference.models import Deployment
from inference.route_services import NewTarget, create_route, set_route_override
from inference.services import set_deployment_enabled
from portal.core.actors import PlatformRole
from tests import factories
from tests.factories import Organisation, unique
from tests.live import deploy
from tests.servers import SessionServers

LIST = "/admin/inference/route/"


@pytest.fixture
def deployment(servers: SessionServers, database: None) -> Iterator[Deployment]:
    name = unique("pages")
    deploy(servers, name)
    found = Deployment.objects.get(name=name)
    yield found
    set_deployment_enabled(context=factories.TESTS, deployment_id=found.id, enabled=False)


@pytest.fixture
def system(database: None) -> Client:
    client = Client()
    client.force_login(factories.administrator(PlatformRole.SYSTEM).user)
    return client


def fields(
    deployment: Deployment, weight: str = "3", tier: str = "0", **more: str
) -> dict[str, str]:
    """What a browser sends."""
    return {
        f"targets-{deployment.pk}-weight": weight,
        f"targets-{deployment.pk}-tier": tier,
        "description": "For the shop",
        "enabled": "on",
        **more,
    }


def targets_of(owner_sql: psycopg.Connection, name: str) -> list[tuple[UUID, int, int]]:
    return owner_sql.execute(
        "SELECT t.deployment_id, t.weight, t.tier FROM inference_routetarget t "
        "JOIN inference_route r ON r.id = t.route_id WHERE r.name = %s",
        [name],
    ).fetchall()


def test_making_a_route_leads_to_its_page_with_health_and_share(
    system: Client, deployment: Deployment, owner_sql: psycopg.Connection
) -> None:
    name = unique("chat")
    answer = system.post(f"{LIST}add/", fields(deployment, name=name))
    assert answer.status_code == 302, answer.content.decode()
    assert targets_of(owner_sql, name) == [(deployment.id, 3, 0)]
    page = system.get(answer["Location"]).content.decode()
    assert deployment.name in page
    assert "100 %" in page
    assert "No worker" in page
    listed = system.get(f"{LIST}?q={name}").content.decode()
    assert f"{deployment.name} 100 %" in listed
    assert "No target is ready" in listed


@pytest.mark.parametrize(
    ("weight", "tier", "said"),
    [
        ("", "0", "at least one deployment a weight"),
        ("two", "0", "whole numbers"),
        ("0", "0", "A weight is from 1 to 1000"),
        ("1", "10", "A tier is from 0 to 9"),
    ],
)
def test_making_a_route_with_wrong_targets_is_refused_beside_them_and_keeps_what_was_typed(
    system: Client, deployment: Deployment, weight: str, tier: str, said: str
) -> None:
    name = unique("chat")
    answer = system.post(f"{LIST}add/", fields(deployment, weight, tier, name=name))
    assert answer.status_code == 400
    page = answer.content.decode()
    assert said in page
    assert f'value="{name}"' in page
    if weight:
        assert f'weight" value="{weight}"' in page


def test_changing_a_route_shows_and_keeps_what_it_has(
    system: Client, deployment: Deployment, owner_sql: psycopg.Connection
) -> None:
    name = unique("chat")
    made = create_route(
        context=factories.TESTS, name=name, targets=[NewTarget(deployment.id, 7, 2)]
    )
    form = system.get(f"{LIST}{made.pk}/edit/").content.decode()
    assert f'{deployment.pk}-weight" value="7"' in form
    assert f'{deployment.pk}-tier" value="2"' in form
    answer = system.post(f"{LIST}{made.pk}/edit/", fields(deployment, "9", "1"))
    assert answer.status_code == 302
    assert targets_of(owner_sql, name) == [(deployment.id, 9, 1)]


def test_assigning_to_a_tenant_and_withdrawing_stand_on_the_page(
    system: Client, deployment: Deployment, tenant_a: Organisation
) -> None:
    made = create_route(
        context=factories.TESTS, name=unique("own"), targets=[NewTarget(deployment.id)]
    )
    page = f"{LIST}{made.pk}/"
    assert f"{page}withdraw/" not in system.get(page).content.decode()
    body = {"tenant": "nobody-s", "name": "chat-of-ours"}
    refused = system.post(f"{page}assign/", body)
    assert "There is no such tenant." in refused.content.decode()
    body["tenant"] = tenant_a.tenant.slug
    assert system.post(f"{page}assign/", body).status_code == 302
    shown = system.get(page).content.decode()
    assert tenant_a.tenant.name in shown
    assert "chat-of-ours" in shown
    assert f"{page}withdraw/" in shown
    form = system.get(f"{page}withdraw/").content.decode()
    chosen = form.split('<option value="')[1].split('"')[0]
    assert system.post(f"{page}withdraw/", {"override": chosen}).status_code == 302
    assert "chat-of-ours" not in system.get(page).content.decode()


def test_deleting_asks_first_and_is_refused_while_a_tenant_has_it(
    system: Client,
    deployment: Deployment,
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
) -> None:
    name = unique("gone")
    made = create_route(context=factories.TESTS, name=name, targets=[NewTarget(deployment.id)])
    page = f"{LIST}{made.pk}/delete/"
    assert "Delete route" in system.get(page).content.decode()
    assert targets_of(owner_sql, name)
    set_route_override(context=factories.TESTS, tenant_id=tenant_a.id, name="x", route_id=made.id)
    refused = system.post(page)
    assert refused.status_code == 409
    assert "remove those first" in refused.content.decode()
    owner_sql.execute("DELETE FROM inference_routeoverride WHERE route_id = %s", [made.id])
    assert system.post(page).status_code == 302
    assert targets_of(owner_sql, name) == []


@pytest.mark.parametrize("role", [PlatformRole.SECURITY, PlatformRole.AUDIT])
def test_other_administrators_have_no_page_of_routes(database: None, role: PlatformRole) -> None:
    client = Client()
    client.force_login(factories.administrator(role).user)
    assert client.get(LIST).status_code == 403
    assert LIST not in client.get("/admin/").content.decode()
