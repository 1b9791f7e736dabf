"""The catalogue in a gateway's memory: which model is served where, at what price.

It changes when an administrator deploys, not by the request, so it is read every few seconds and
once more when an unknown model is asked for. Admission checks in its own transaction that the
deployment is still enabled; keys and limits are never cached.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from psycopg.rows import namedtuple_row

from inference.gateway.link import Link
from inference.gateway.wire.response import ModelInfo
from inference.prompts import PromptEncoder
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

QUERY: Final = """
SELECT m.id AS model_id, m.name AS model_name, m.created_at,
       d.id AS deployment_id, d.name AS deployment_name, d.queue, d.context_length,
       d.default_max_tokens, v.label, v.path, v.digest,
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

_REFRESH_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0


async def _read(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
    cursor = connection.cursor(row_factory=namedtuple_row)
    await cursor.execute(QUERY)
    return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Served:
    """A model as it is served now; prices in micro-units of currency a million tokens."""

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
    encoder: PromptEncoder
    max_chars: int


class Catalogue:
    """Served models by name."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._served: dict[str, Served] = {}
        self._encoders: dict[str, PromptEncoder] = {}
        self._read_at = 0.0
        self._reading = asyncio.Lock()

    async def find(self, name: str) -> Served | None:
        """The served model of that name, or None."""
        age = time.monotonic() - self._read_at
        found = self._served.get(name)
        if age > _REFRESH_SECONDS or (found is None and age > _RETRY_SECONDS):
            await self._refresh()
            found = self._served.get(name)
        return found

    async def models(self) -> list[Served]:
        """All served models."""
        if time.monotonic() - self._read_at > _RETRY_SECONDS:
            await self._refresh()
        return list(self._served.values())

    async def _refresh(self) -> None:
        before = self._read_at
        async with self._reading:
            if self._read_at != before:
                return
            rows = await self._link.read(_read)
            served = [await self._serve_or_leave(row) for row in rows]
            self._served = {model.model_name: model for model in served if model is not None}
            self._read_at = time.monotonic()

    async def _serve_or_leave(self, row: Any) -> Served | None:
        """One deployment; None if its artefact can't be read, so that the others are served."""
        try:
            return await self._serve(row)
        except (PortalError, OSError, ValueError) as fault:
            log.error("deployment.unreadable", deployment=row.deployment_name, error=str(fault))
            return None

    async def _serve(self, row: Any) -> Served:
        encoder = self._encoders.get(row.path)
        if encoder is None:
            encoder = await asyncio.to_thread(PromptEncoder.load, Path(row.path))
            self._encoders[row.path] = encoder
        return served_of(row, encoder)


def served_of(row: Any, encoder: PromptEncoder) -> Served:
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
    )


def model_info(served: Served) -> ModelInfo:
    return ModelInfo(served.model_name, served.created, "freehold")
