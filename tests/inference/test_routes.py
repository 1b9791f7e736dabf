"""Routes from the services that make them to what a gateway's catalogue makes of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import psycopg
import pytest

from inference.gateway.admission import Admitted, Refused
from inference.gateway.catalogue import Catalogue, Named, Routed, Served
from inference.models import Deployment, RouteOverride
from inference.route_services import (
    MOST_TARGETS,
    NewTarget,
    create_route,
    delete_route,
    delete_route_override,
    edit_route,
    set_route_override,
)
from inference.services import create_deployment, set_deployment_enabled
from portal.core.actors import PlatformRole
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy import platform_scope
from tenants.services import set_quota
from tests import factories, live
from tests.audit.trail import events_of_tenant
from tests.factories import TESTS, Organisation, unique
from tests.inference.bench import Bench, credential


@dataclass(slots=True)
class World:
    """Two models of one deployment each, and the bench's catalogue."""

    bench: Bench
    first: Deployment
    second: Deployment

    def find(self, name: str) -> Named | None:
        """What a gateway that has just started makes of a name."""
        return self.bench.run(Catalogue(self.bench._queries).find(name))  # type: ignore[no-any-return]

    def targets(self, name: str, tenant_id: UUID | None = None) -> list[UUID]:
        named = self.find(name)
        assert isinstance(named, Routed), named
        return [t.deployment_id for t in named.meaning.of(tenant_id or uuid7())]

    def to(self, *deployments: Deployment) -> list[NewTarget]:
        return [NewTarget(d.id, tier=n) for n, d in enumerate(deployments)]


@pytest.fixture
def world(bench: Bench) -> Iterator[World]:
    name = unique("other")
    live.deploy(bench.servers, name)
    first = Deployment.objects.get(name=bench.deployed.deployment)
    second = Deployment.objects.get(name=name)
    yield World(bench, first, second)
    for made in Deployment.objects.filter(model__in=[first.model_id, second.model_id]):
        set_deployment_enabled(context=TESTS, deployment_id=made.id, enabled=False)


def second_deployment_of(deployment: Deployment) -> Deployment:
    return create_deployment(
        context=TESTS, name=unique("replica"), version_id=deployment.version_id, engine="fake"
    )


# -- names ------------------------------------------------------------------------------------


def test_model_with_one_deployment_is_found_without_a_choice(world: World) -> None:
    named = world.find(world.first.model.name)
    assert isinstance(named, Served)
    assert named.deployment_id == world.first.id


def test_enabling_a_second_deployment_makes_replicas_of_equal_weight(world: World) -> None:
    replica = second_deployment_of(world.first)
    named = world.find(world.first.model.name)
    assert isinstance(named, Routed)
    assert {(t.deployment_id, t.weight, t.tier) for t in named.meaning.default} == {
        (world.first.id, 1, 0),
        (replica.id, 1, 0),
    }
    set_deployment_enabled(context=TESTS, deployment_id=replica.id, enabled=False)
    assert isinstance(world.find(world.first.model.name), Served)


def test_route_leads_to_its_targets_and_wins_over_a_model_of_its_name(world: World) -> None:
    name = world.first.model.name
    made = create_route(context=TESTS, name=name, targets=world.to(world.second, world.first))
    assert world.targets(name) == [world.second.id, world.first.id]
    edit_route(context=TESTS, route_id=made.id, enabled=False)
    assert isinstance(world.find(name), Served)
    edit_route(context=TESTS, route_id=made.id, enabled=True, targets=world.to(world.second))
    assert world.targets(name) == [world.second.id]
    delete_route(context=TESTS, route_id=made.id)
    assert isinstance(world.find(name), Served)


def test_route_passes_over_deployments_that_are_disabled(world: World) -> None:
    name = unique("chat")
    create_route(context=TESTS, name=name, targets=world.to(world.first, world.second))
    set_deployment_enabled(context=TESTS, deployment_id=world.first.id, enabled=False)
    assert world.targets(name) == [world.second.id]


def test_override_leads_its_tenant_elsewhere_and_nobody_else(
    world: World, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    name = world.first.model.name
    own = create_route(
        context=TESTS, name=unique("own"), targets=world.to(world.second), reserved=True
    )
    set_route_override(context=TESTS, tenant_id=tenant_a.id, name=name, route_id=own.id)
    assert world.targets(name, tenant_a.id) == [world.second.id]
    assert world.targets(name, tenant_b.id) == [world.first.id]
    # A reserved route can be called by an override alone, whoever asks.
    assert world.find(own.name) is None
    # What was chosen for the tenant is switched off: it does not get what others get.
    edit_route(context=TESTS, route_id=own.id, enabled=False)
    assert world.targets(name, tenant_a.id) == []
    assert world.targets(name, tenant_b.id) == [world.first.id]


def test_override_is_served_from_admission_to_the_job(
    world: World, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    bench, name = world.bench, world.first.model.name
    own = create_route(context=TESTS, name=unique("own"), targets=world.to(world.second))
    set_route_override(context=TESTS, tenant_id=tenant_a.id, name=name, route_id=own.id)
    ran: dict[UUID, Any] = {}
    for organisation in (tenant_a, tenant_b):
        caller = credential(factories.api_key(organisation))
        (verdict,) = bench.submit([bench.pending_route(caller, name)])
        assert isinstance(verdict, Admitted)
        ran[organisation.id] = bench.job(verdict.job_id)
    assert ran[tenant_a.id]["deployment_id"] == world.second.id
    assert ran[tenant_a.id]["sku"] == f"{world.second.model.name}@1"
    assert ran[tenant_a.id]["parameters"]["route"] == name
    assert ran[tenant_b.id]["deployment_id"] == world.first.id
    assert "route" not in ran[tenant_b.id]["parameters"]


def test_limit_of_a_model_holds_when_it_is_called_by_a_route(
    world: World, tenant_a: Organisation
) -> None:
    bench, name = world.bench, unique("chat")
    create_route(context=TESTS, name=name, targets=world.to(world.first))
    set_quota(context=TESTS, tenant_id=tenant_a.id, model_id=world.first.model_id, requests_day=1)
    caller = credential(factories.api_key(tenant_a))
    admitted, refused = bench.submit([bench.pending_route(caller, name) for _ in range(2)])
    assert isinstance(admitted, Admitted)
    assert isinstance(refused, Refused)
    assert refused.error.error_code == "insufficient_quota"


# -- services ---------------------------------------------------------------------------------


def test_make_route_is_the_system_administrators_alone(
    world: World, tenant_a: Organisation
) -> None:
    name, targets = unique("chat"), world.to(world.first)
    others = [
        factories.administrator(PlatformRole.SECURITY).context,
        factories.administrator(PlatformRole.AUDIT).context,
        tenant_a.owner.context,
        tenant_a.developer.context,
    ]
    for context in others:
        with pytest.raises(Forbidden):
            create_route(context=context, name=name, targets=targets)
    made = create_route(
        context=factories.administrator(PlatformRole.SYSTEM).context, name=name, targets=targets
    )
    for context in others:
        with pytest.raises(Forbidden):
            edit_route(context=context, route_id=made.id, enabled=False)
        with pytest.raises(Forbidden):
            delete_route(context=context, route_id=made.id)
        with pytest.raises(Forbidden):
            set_route_override(context=context, tenant_id=tenant_a.id, name="x", route_id=made.id)
        with pytest.raises(Forbidden):
            delete_route_override(context=context, override_id=uuid7())


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "x" * 81, "a\n", "ä"])
def test_make_route_with_a_bad_name_is_refused(world: World, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        create_route(context=TESTS, name=name, targets=world.to(world.first))
    assert refused.value.param == "name"


def test_make_route_with_bad_targets_is_refused(world: World) -> None:
    one = NewTarget(world.first.id)
    for targets in (
        [],
        [one, one],
        [replace(one, weight=0)],
        [replace(one, weight=1001)],
        [replace(one, tier=-1)],
        [replace(one, tier=10)],
        [NewTarget(uuid7()) for _ in range(MOST_TARGETS + 1)],
    ):
        with pytest.raises(Invalid) as refused:
            create_route(context=TESTS, name=unique("chat"), targets=targets)
        assert refused.value.param == "targets"
    with pytest.raises(NotFound):
        create_route(context=TESTS, name=unique("chat"), targets=[NewTarget(uuid7())])


def test_make_route_of_a_taken_name_is_refused(world: World) -> None:
    name = unique("chat")
    create_route(context=TESTS, name=name, targets=world.to(world.first))
    with pytest.raises(Conflict):
        create_route(context=TESTS, name=name, targets=world.to(world.first))


def test_delete_route_that_a_tenant_has_is_refused_until_it_is_withdrawn(
    world: World, tenant_a: Organisation
) -> None:
    made = create_route(context=TESTS, name=unique("own"), targets=world.to(world.first))
    override = set_route_override(
        context=TESTS, tenant_id=tenant_a.id, name="mine", route_id=made.id
    )
    with pytest.raises(Conflict):
        delete_route(context=TESTS, route_id=made.id)
    delete_route_override(context=TESTS, override_id=override.id)
    delete_route(context=TESTS, route_id=made.id)
    with pytest.raises(NotFound):
        edit_route(context=TESTS, route_id=made.id, enabled=False)
    with pytest.raises(NotFound):
        delete_route_override(context=TESTS, override_id=override.id)


def test_set_override_again_changes_the_one_that_is_there(
    world: World, tenant_a: Organisation
) -> None:
    routes = [
        create_route(context=TESTS, name=unique("own"), targets=world.to(world.first))
        for _ in range(2)
    ]
    made = [
        set_route_override(context=TESTS, tenant_id=tenant_a.id, name="mine", route_id=r.id)
        for r in routes
    ]
    assert made[0].id == made[1].id
    with platform_scope(TESTS, reason="a test looks"):
        (found,) = RouteOverride.objects.filter(tenant_id=tenant_a.id)
    assert found.route_id == routes[1].id
    with pytest.raises(NotFound):
        set_route_override(context=TESTS, tenant_id=uuid7(), name="x", route_id=routes[0].id)
    with pytest.raises(NotFound):
        set_route_override(context=TESTS, tenant_id=tenant_a.id, name="x", route_id=uuid7())


# -- the trail --------------------------------------------------------------------------------


def changes(owner_sql: psycopg.Connection, object_id: UUID) -> list[tuple[str, Any, Any]]:
    return owner_sql.execute(
        "SELECT e.action, b.before, b.after FROM audit_event e "
        "JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.category = 'change' AND e.object_id = %s ORDER BY e.recorded_at, e.id",
        [str(object_id)],
    ).fetchall()


def test_every_change_of_a_route_is_told_with_before_and_after(
    world: World, owner_sql: psycopg.Connection
) -> None:
    made = create_route(context=TESTS, name=unique("chat"), targets=world.to(world.first))
    with platform_scope(TESTS, reason="a test looks"):
        (target,) = made.targets.all()
    edit_route(
        context=TESTS,
        route_id=made.id,
        description="new",
        targets=[NewTarget(world.first.id, 7, 1), NewTarget(world.second.id)],
    )
    _, edited = changes(owner_sql, made.id)
    assert (edited[1]["description"], edited[2]["description"]) == ("", "new")
    _, moved = changes(owner_sql, target.id)
    assert (moved[1]["weight"], moved[2]["weight"]) == (1, 7)
    assert (moved[1]["tier"], moved[2]["tier"]) == (0, 1)
    actions = owner_sql.execute(
        "SELECT action FROM audit_event WHERE category = 'intent' AND object_id = %s "
        "ORDER BY recorded_at, id",
        [str(made.id)],
    ).fetchall()
    assert actions == [("route.create",), ("route.edit",)]


def test_edit_that_leaves_the_targets_alone_changes_no_target(
    world: World, owner_sql: psycopg.Connection
) -> None:
    targets = world.to(world.first, world.second)
    made = create_route(context=TESTS, name=unique("chat"), targets=targets)
    with platform_scope(TESTS, reason="a test looks"):
        ids = [target.id for target in made.targets.all()]
    edit_route(context=TESTS, route_id=made.id, targets=list(reversed(targets)))
    assert [len(changes(owner_sql, target_id)) for target_id in ids] == [1, 1]


def test_override_is_told_in_the_tenants_own_trail(
    world: World,
    tenant_a: Organisation,
    tenant_b: Organisation,
    owner_sql: psycopg.Connection,
) -> None:
    made = create_route(context=TESTS, name=unique("own"), targets=world.to(world.first))
    override = set_route_override(
        context=TESTS, tenant_id=tenant_a.id, name="mine", route_id=made.id
    )
    delete_route_override(context=TESTS, override_id=override.id)
    told = [
        e.action
        for e in events_of_tenant(owner_sql, tenant_a.id)
        if e.object_id == str(override.id)
    ]
    assert sorted(told) == [
        "inference.routeoverride.delete",
        "inference.routeoverride.insert",
        "route.override",
        "route.remove_override",
    ]
    assert [
        e for e in events_of_tenant(owner_sql, tenant_b.id) if e.object_id == str(override.id)
    ] == []
