"""Reads of the inference app that join several models."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import Exists, OuterRef, Prefetch, QuerySet, Subquery
from django.utils import timezone

from inference.backlog import WORKER_SECONDS, Backlog
from inference.models import (
    Deployment,
    Job,
    JobState,
    Model,
    ModelPrice,
    Priority,
    QueueForecast,
    Route,
    RouteTarget,
    Worker,
)
from inference.models.dispatch import WorkerState
from portal.core.actors import Context
from portal.core.errors import NotFound
from portal.core.tenancy import current_context, platform_scope
from tenants.models import ApiKey

# Written every second while something waits.
_FORECAST_HOLDS: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a job's life."""

    name: str
    at: datetime


def jobs() -> QuerySet[Job]:
    """The jobs of the scope's tenant, each with its key and user.

    The tenant is named, though its scope shows no other: only of a tenant that it knows does the
    planner know how many jobs it has, and whether to sort them. Keys and users come by queries of
    their own for the same reason: of a join it expects a row or two.
    """
    tenant_id = current_context().tenant_id
    assert tenant_id is not None, "jobs are read in a tenant's scope"
    found = Job.objects.filter(tenant_id=tenant_id)
    secrets = ("secret_hmac", "former_secret_hmac", "session_hmac")
    keys = Prefetch("api_key", ApiKey.objects.defer(*secrets))
    return found.prefetch_related(keys, "user")


def get_job(job_id: UUID) -> Job:
    """A job of the scope's tenant.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    job = jobs().filter(pk=job_id).first()
    if job is None:
        raise NotFound("There is no such job.")
    return job


def timeline(job: Job) -> list[Moment]:
    """What happened to a job, in order."""
    found = [
        Moment(name, at)
        for name, at in (
            ("admitted", job.admitted_at),
            ("claimed", job.claimed_at),
            ("first_token", job.first_token_at),
            ("cancel_requested", job.cancel_requested_at),
            ("finished", job.finished_at),
        )
        if at is not None
    ]
    return sorted(found, key=lambda moment: moment.at)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a waiting job stands in fair order.

    Attributes:
        position: 1 for the job that is next; a round number, and at least that, beyond 100.
        wait_seconds: how long it is likely to wait still; None while that is not known.
    """

    position: int
    wait_seconds: float | None


def place_of(job: Job) -> Place | None:
    """A job's place in its queue; None if it does not wait, or has only just begun to."""
    forecast = _forecast(job.deployment_id) if job.state == JobState.QUEUED else None
    if forecast is None:
        return None
    ahead = [rank for rank, tag in forecast.ranks if tag < job.start_tag]
    return Place(max(ahead, default=0) + 1, backlog_of(forecast).wait_seconds(job.start_tag))


def drain_seconds(deployment_id: UUID) -> float | None:
    """How long it takes to work off what waits for a deployment now; None where it is not known."""
    forecast = _forecast(deployment_id)
    return backlog_of(forecast).wait_seconds(math.inf) if forecast else None


def forecast_length(deployment_id: UUID) -> int:
    """How many jobs wait for an enabled deployment; a round number beyond 100, at most 10,000."""
    forecast = _forecast(deployment_id)
    return max((int(rank) for rank, _ in forecast.ranks), default=0) if forecast else 0


def _forecast(deployment_id: UUID) -> QueueForecast | None:
    return fresh_forecasts(QueueForecast.objects.filter(deployment_id=deployment_id)).first()


def fresh_forecasts(found: QuerySet[QueueForecast]) -> QuerySet[QueueForecast]:
    """Those of the forecasts that still hold."""
    return found.filter(read_at__gte=timezone.now() - _FORECAST_HOLDS)


def backlog_of(forecast: QueueForecast) -> Backlog:
    """What waits, without saying whose it is."""
    # Whose they are is not told, so neither is the class.
    shares = tuple((None, Priority.INTERACTIVE, at, weight) for at, weight in forecast.shares)
    return Backlog(forecast.head, forecast.pace, shares)


def served_models() -> QuerySet[Model]:
    """Models with an enabled deployment, and what they cost now; of replicas the first by name."""
    deployment = Deployment.objects.filter(model=OuterRef("pk"), enabled=True).order_by("name")
    price = ModelPrice.objects.filter(
        effective_from__lte=timezone.now(), version=OuterRef("served_version")
    ).order_by("-effective_from")
    return (
        Model.objects.annotate(
            served_version=Subquery(deployment.values("version")[:1]),
            deployment_name=Subquery(deployment.values("name")[:1]),
            context_length=Subquery(deployment.values("context_length")[:1]),
            version_label=Subquery(deployment.values("version__label")[:1]),
            version_quality=Subquery(deployment.values("version__quality")[:1]),
        )
        .annotate(
            prompt_micros_per_million=Subquery(price.values("prompt_micros_per_million")[:1]),
            completion_micros_per_million=Subquery(
                price.values("completion_micros_per_million")[:1]
            ),
            currency=Subquery(price.values("currency")[:1]),
        )
        .exclude(served_version=None)
    )


def deployments() -> QuerySet[Deployment]:
    """All deployments with model and version."""
    return Deployment.objects.select_related("model", "version")


@contextmanager
def routes_scope(context: Context) -> Iterator[None]:
    """The platform's scope, which alone sees routes and the tenants that have their own."""
    with platform_scope(replace(context, tenant_id=None), reason="routes are listed"):
        yield


def routes() -> QuerySet[Route]:
    """All routes with their targets, of which ``live`` says whether a worker is ready."""
    fresh = timezone.now() - timedelta(seconds=WORKER_SECONDS)
    ready = Worker.objects.filter(
        deployment=OuterRef("deployment"), state=WorkerState.READY, heartbeat_at__gt=fresh
    )
    targets = RouteTarget.objects.select_related("deployment__model").annotate(live=Exists(ready))
    return Route.objects.prefetch_related(Prefetch("targets", targets))


def get_route(route_id: UUID) -> Route:
    """A route with its targets.

    Raises:
        NotFound: there is none.
    """
    route = routes().filter(pk=route_id).first()
    if route is None:
        raise NotFound("There is no such route.")
    return route
