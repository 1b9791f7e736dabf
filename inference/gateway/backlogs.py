"""What waits for each deployment, in a gateway's memory: read every second, off admission's way."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog

from inference.backlog import READ, Backlog
from inference.gateway.link import Link

log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 5.0


async def _read(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
    cursor = await connection.execute(READ)
    return await cursor.fetchall()


class Backlogs:
    """Keeps the backlog of every deployment where something waits."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._found: Mapping[UUID, Backlog] = {}
        self._task: asyncio.Task[None] | None = None

    def now(self) -> Mapping[UUID, Backlog]:
        """By deployment; none where nothing waits, or where it could not be read."""
        return self._found

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="backlogs")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    rows = await self._link.read(_read)
                self._found = {deployment: Backlog.of(*rest) for deployment, *rest in rows}
            except (psycopg.Error, TimeoutError) as fault:
                # Whoever knows nothing refuses nobody.
                self._found = {}
                log.warning("backlogs.unread", error=str(fault))
            await asyncio.sleep(_EVERY_SECONDS)
