"""Verbs of routes, which are the platform's alone: who serves what is its capacity and price."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction

from audit.services import intent
from inference.models import Deployment, Route, RouteOverride, RouteTarget
from inference.models.routes import MOST_TIER, MOST_WEIGHT
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.tenancy import platform_scope
from tenants.models import Tenant
from tenants.permissions import Action, require

MOST_TARGETS = 16


@dataclass(frozen=True, slots=True)
class NewTarget:
    """A deployment that a route is to lead to; see ``RouteTarget``."""

    deployment_id: UUID
    weight: int = 1
    tier: int = 0


@contextmanager
def _platform(context: Context, reason: str) -> Iterator[None]:
    with platform_scope(replace(context, tenant_id=None), reason=reason):
        yield


def create_route(
    *,
    context: Context,
    name: str,
    targets: Sequence[NewTarget],
    description: str = "",
    reserved: bool = False,
    enabled: bool = True,
) -> Route:
    """Lets callers put ``name`` into ``model``; it wins over a model of that name.

    Args:
        targets: at least one, each deployment once.
        reserved: only tenants to which an override gives it can call it.

    Raises:
        Forbidden, NotFound, Invalid: naming the field that is wrong.
        Conflict: there is a route of that name.
    """
    require(context, Action.ROUTE_EDIT)
    with _platform(context, "a route is made"):
        route = Route(name=name, description=description, reserved=reserved, enabled=enabled)
        _check(route)
        rows = _targets(route, targets)
        with _intent("route.create", route):
            _save(route, "There is a route of that name.")
            for row in rows:
                row.save(force_insert=True)
    return route


def edit_route(
    *,
    context: Context,
    route_id: UUID,
    targets: Sequence[NewTarget] | None = None,
    description: str | None = None,
    reserved: bool | None = None,
    enabled: bool | None = None,
) -> Route:
    """Changes what is given; calls under way go on where they are.

    Args:
        targets: all that the route is to have from now on.

    Raises:
        Forbidden, NotFound, Invalid: naming the field that is wrong.
    """
    require(context, Action.ROUTE_EDIT)
    with _platform(context, "a route is edited"):
        route = _locked(route_id)
        given = {"description": description, "reserved": reserved, "enabled": enabled}
        changed = {name: value for name, value in given.items() if value is not None}
        for name, value in changed.items():
            setattr(route, name, value)
        _check(route)
        rows = None if targets is None else _targets(route, targets)
        with _intent("route.edit", route):
            if changed:
                route.save(update_fields=list(changed))
            if rows is not None:
                _replace_targets(route, rows)
    return route


def delete_route(*, context: Context, route_id: UUID) -> None:
    """Deletes a route; a model of its name is called by that name again.

    Raises:
        Forbidden, NotFound.
        Conflict: a tenant's override leads to it.
    """
    require(context, Action.ROUTE_EDIT)
    with _platform(context, "a route is deleted"):
        route = _locked(route_id)
        if route.overrides.exists():
            raise Conflict("Tenants have this route by an override: remove those first.")
        with _intent("route.delete", route):
            route.delete()


def set_route_override(
    *, context: Context, tenant_id: UUID, name: str, route_id: UUID
) -> RouteOverride:
    """Lets a name lead one tenant to a route, whatever it means to others.

    Raises:
        Forbidden, NotFound, Invalid: naming the field that is wrong.
    """
    require(context, Action.ROUTE_EDIT)
    # What concerns a tenant stands in that tenant's trail.
    inside = replace(context, tenant_id=tenant_id)
    with platform_scope(inside, reason="a tenant gets a route of its own"):
        if not Tenant.objects.filter(pk=tenant_id).exists():
            raise NotFound("There is no such tenant.")
        route = _locked(route_id)
        found = (
            RouteOverride.objects.select_for_update().filter(tenant_id=tenant_id, name=name).first()
        )
        override = found or RouteOverride(tenant_id=tenant_id, name=name)
        override.route = route
        _check(override, "tenant", "route")
        with _override_intent("route.override", override):
            if found is None:
                _save(override, "The override was made at this moment; look at it first.")
            else:
                override.save(update_fields=["route"])
    return override


def delete_route_override(*, context: Context, override_id: UUID) -> None:
    """The name means to the tenant what it means to everyone again.

    Raises:
        Forbidden, NotFound.
    """
    require(context, Action.ROUTE_EDIT)
    with _platform(context, "a tenant's route is looked up"):
        override = RouteOverride.objects.filter(pk=override_id).first()
        if override is None:
            raise NotFound("There is no such override.")
    inside = replace(context, tenant_id=override.tenant_id)
    with (
        platform_scope(inside, reason="a tenant's own route is taken away"),
        _override_intent("route.remove_override", override),
    ):
        override.delete()


@contextmanager
def _intent(action: str, route: Route) -> Iterator[None]:
    with intent(action, object_type="inference.route", object_id=route.id, object_label=route.name):
        yield


@contextmanager
def _override_intent(action: str, override: RouteOverride) -> Iterator[None]:
    with intent(
        action,
        object_type="inference.routeoverride",
        object_id=override.id,
        object_label=override.name,
    ):
        yield


def _targets(route: Route, targets: Sequence[NewTarget]) -> list[RouteTarget]:
    """Rows for the targets, not saved.

    Raises:
        Invalid: none, too many, one twice, or a number out of range.
        NotFound: no such deployment.
    """
    wanted = {t.deployment_id for t in targets}
    if not 1 <= len(targets) <= MOST_TARGETS or len(wanted) < len(targets):
        raise Invalid(
            f"A route has from 1 to {MOST_TARGETS} targets, each deployment once.", param="targets"
        )
    for target in targets:
        if not 1 <= target.weight <= MOST_WEIGHT:
            raise Invalid(f"A weight is from 1 to {MOST_WEIGHT}.", param="targets")
        if not 0 <= target.tier <= MOST_TIER:
            raise Invalid(f"A tier is from 0 to {MOST_TIER}.", param="targets")
    if Deployment.objects.filter(pk__in=wanted).count() < len(wanted):
        raise NotFound("There is no such deployment.")
    return [
        RouteTarget(route=route, deployment_id=t.deployment_id, weight=t.weight, tier=t.tier)
        for t in targets
    ]


def _replace_targets(route: Route, rows: Sequence[RouteTarget]) -> None:
    """Changes, adds and deletes what differs, so that the trail tells just that."""
    before = {target.deployment_id: target for target in route.targets.all()}
    for row in rows:
        there = before.pop(row.deployment_id, None)
        if there is None:
            row.save(force_insert=True)
        elif (there.weight, there.tier) != (row.weight, row.tier):
            there.weight, there.tier = row.weight, row.tier
            there.save(update_fields=["weight", "tier"])
    for left in before.values():
        left.delete()


def _check(row: models.Model, *exclude: str) -> None:
    try:
        row.clean_fields(exclude=exclude)
    except ValidationError as fault:
        param, messages = next(iter(fault.message_dict.items()))
        raise Invalid(f"'{param}': {messages[0]}", param=param) from None


def _save(row: models.Model, taken: str) -> None:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise Conflict(taken) from None


def _locked(route_id: UUID) -> Route:
    route = Route.objects.select_for_update().filter(pk=route_id).first()
    if route is None:
        raise NotFound("There is no such route.")
    return route
