"""The catalogue in a gateway's memory: which name leads where, and what is served at what price.

It changes when an administrator deploys, not by the request, so it is read every few seconds and
once more when an unknown model is asked for. Admission checks in its own transaction that the
deployment is still enabled; keys and limits are never cached.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
import structlog
from psycopg.rows import namedtuple_row

from inference.engines.abilities import engines_of
from inference.gateway.link import Link
from inference.gateway.routing import Meaning, Target
from inference.gateway.wire.response import ModelInfo
from inference.inputs import InputEncoder, load_encoder
from inference.prompts import PromptEncoder
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

QUERY: Final = """
SELECT m.id AS model_id, m.name AS model_name, m.created_at, m.task,
       d.id AS deployment_id, d.name AS deployment_name, d.queue, d.context_length,
       d.default_max_tokens, d.engine, v.label, v.path, v.digest, v.format,
       coalesce(p.prompt_micros_per_million, 0) AS prompt_price,
       coalesce(p.completion_micros_per_million, 0) AS completion_price,
       coalesce(p.currency, 'USD') AS currency
  FROM inference_deployment d
  JOIN inference_model m ON m.id = d.model_id
  JOIN inference_modelversion v ON v.id = d.version_id
  LEFT JOIN LATERAL (
       SELECT * FROM inference_modelprice
        WHERE version_id = v.id AND effective_from <= now()
        ORDER BY effective_from DESC LIMIT 1) p ON true
 WHERE d.enabled
"""

ROUTES: Final = """
SELECT r.id, r.name, r.enabled, r.reserved, r.created_at,
       (SELECT json_agg(json_build_array(t.deployment_id, t.weight, t.tier) ORDER BY t.id)::text
          FROM inference_routetarget t WHERE t.route_id = r.id) AS targets
  FROM inference_route r
"""
OVERRIDES: Final = "SELECT tenant_id, name, route_id, created_at FROM inference_routeoverride"

_REFRESH_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0

_decode_targets: Final = msgspec.json.Decoder(list[tuple[UUID, int, int]]).decode


async def _read(connection: psycopg.AsyncConnection[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """The rows of served deployments, of routes and of overrides."""
    cursor = connection.cursor(row_factory=namedtuple_row)
    found = []
    for query in (QUERY, ROUTES, OVERRIDES):
        await cursor.execute(query)
        found.append(await cursor.fetchall())
    served, routes, overrides = found
    return served, routes, overrides


@dataclass(frozen=True, slots=True)
class Served:
    """A model as it is served now; prices in micro-units of currency a million tokens.

    ``engines`` are those that may serve it: one, unless its workers' machines decide.
    """

    model_id: UUID
    model_name: str
    created: int
    deployment_id: UUID
    queue: str
    context_length: int
    default_max_tokens: int
    sku: str
    prompt_price: int
    completion_price: int
    currency: str
    encoder: PromptEncoder | InputEncoder
    max_chars: int
    task: str = "generate"
    engines: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Routed:
    """A name that needs the caller's tenant, or a draw, before it is one deployment's.

    ``created`` is in Unix seconds; ``served`` holds every deployment of the meaning.
    """

    meaning: Meaning
    created: int
    served: Mapping[UUID, Served]


Named = Served | Routed
"""What a name leads to. A model with one deployment and no route is that deployment."""


class Catalogue:
    """What is served, by the names that callers put into ``model``."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._named: dict[str, Named] = {}
        self._encoders: dict[tuple[str, str], PromptEncoder | InputEncoder] = {}
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def find(self, name: str) -> Named | None:
        """What that name leads to, or None."""
        age = time.monotonic() - self._read_at
        found = self._named.get(name)
        if age > _REFRESH_SECONDS or (found is None and age > _RETRY_SECONDS):
            await self._refresh()
            found = self._named.get(name)
        return found

    async def names(self) -> Mapping[str, Named]:
        """All names, some of which may mean something to few tenants alone."""
        if time.monotonic() - self._read_at > _RETRY_SECONDS:
            await self._refresh()
        return self._named

    async def _refresh(self) -> None:
        before = self._read_at
        async with self._reading:
            if self._read_at != before:
                return
            rows, routes, overrides = await self._link.read(_read)
            served = [await self._serve_or_leave(row) for row in rows]
            self._named = named_of([s for s in served if s is not None], routes, overrides)
            self._read_at = time.monotonic()

    async def _serve_or_leave(self, row: Any) -> Served | None:
        """One deployment; None if its artefact can't be read, so that the others are served."""
        try:
            return await self._serve(row)
        except (PortalError, OSError, ValueError) as fault:
            log.error("deployment.unreadable", deployment=row.deployment_name, error=str(fault))
            return None

    async def _serve(self, row: Any) -> Served:
        known = row.path, row.task
        encoder = self._encoders.get(known)
        if encoder is None:
            encoder = await asyncio.to_thread(load_encoder, Path(row.path), row.task)
            self._encoders[known] = encoder
        return served_of(row, encoder)


def rows_of_names(
    names: Collection[str],
    served: Iterable[Any],
    routes: Iterable[Any],
    overrides: Iterable[Any],
) -> list[Any]:
    """The rows of ``QUERY`` among ``served`` that any of the names can lead to."""
    overriding = {o.route_id for o in overrides if o.name in names}
    targets = {
        deployment_id
        for route in routes
        if route.targets is not None and (route.name in names or route.id in overriding)
        for deployment_id, _, _ in _decode_targets(route.targets)
    }
    return [r for r in served if r.model_name in names or r.deployment_id in targets]


def served_of(row: Any, encoder: PromptEncoder | InputEncoder) -> Served:
    """The model in a row of ``QUERY``."""
    return Served(
        model_id=row.model_id,
        model_name=row.model_name,
        created=int(row.created_at.timestamp()),
        deployment_id=row.deployment_id,
        queue=row.queue,
        context_length=row.context_length,
        default_max_tokens=row.default_max_tokens,
        sku=f"{row.model_name}@{row.label}",
        prompt_price=row.prompt_price,
        completion_price=row.completion_price,
        currency=row.currency,
        encoder=encoder,
        max_chars=encoder.max_chars(row.context_length),
        task=row.task,
        engines=engines_of(row.engine, row.format),
    )


def named_of(
    served: Sequence[Served], routes: Iterable[Any], overrides: Iterable[Any]
) -> dict[str, Named]:
    """Every name and what it leads to: models, over them routes, over both tenants' overrides."""
    by_id = {s.deployment_id: s for s in served}
    named = _models(served)
    targets: dict[UUID, tuple[Target, ...]] = {}
    for route in routes:
        targets[route.id] = _targets(route, by_id)
        if route.enabled and not route.reserved:
            meaning = Meaning(route.name, targets[route.id], {})
            named[route.name] = _routed(meaning, int(route.created_at.timestamp()), by_id)
    for override in overrides:
        before = named.get(override.name)
        meaning = _meaning(override.name, before)
        # A route that is disabled leads this tenant nowhere: what others have under the name is
        # not what was chosen for it.
        own = {**meaning.overrides, override.tenant_id: targets[override.route_id]}
        created = int(override.created_at.timestamp()) if before is None else before.created
        meaning = Meaning(override.name, meaning.default, own)
        named[override.name] = _routed(meaning, created, by_id)
    return named


def _models(served: Sequence[Served]) -> dict[str, Named]:
    """Each model by its own name: its one deployment, or all of them with equal weight."""
    replicas: dict[str, list[Served]] = {}
    for one in sorted(served, key=lambda s: s.deployment_id):
        replicas.setdefault(one.model_name, []).append(one)
    named: dict[str, Named] = {}
    for name, found in replicas.items():
        if len(found) == 1:
            named[name] = found[0]
        else:
            targets = tuple(Target(s.deployment_id, name) for s in found)
            by_id = {s.deployment_id: s for s in found}
            named[name] = Routed(Meaning(name, targets, {}), found[0].created, by_id)
    return named


def _targets(route: Any, by_id: Mapping[UUID, Served]) -> tuple[Target, ...]:
    """The targets of a route that are served; none of one that is disabled."""
    if not route.enabled or route.targets is None:
        return ()
    return tuple(
        Target(deployment_id, by_id[deployment_id].model_name, weight, tier)
        for deployment_id, weight, tier in _decode_targets(route.targets)
        if deployment_id in by_id
    )


def _meaning(name: str, before: Named | None) -> Meaning:
    if before is None:
        return Meaning(name, (), {})
    if isinstance(before, Routed):
        return before.meaning
    return Meaning(name, (Target(before.deployment_id, before.model_name),), {})


def _routed(meaning: Meaning, created: int, by_id: Mapping[UUID, Served]) -> Routed:
    return Routed(meaning, created, {d: by_id[d] for d in meaning.deployments()})


def model_info(name: str, named: Named) -> ModelInfo:
    return ModelInfo(name, named.created, "freehold")
