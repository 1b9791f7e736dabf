"""What waits for each deployment, and which are live: in a gateway's memory, read every second."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog

from inference.backlog import LIVE, READ, Backlog
from inference.gateway.link import Link

log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 5.0


async def _read(connection: psycopg.AsyncConnection[Any]) -> tuple[list[Any], list[Any]]:
    """Rows of ``READ`` and of ``LIVE``."""
    backlogs = await (await connection.execute(READ)).fetchall()
    live = await (await connection.execute(LIVE)).fetchall()
    return backlogs, live


class Backlogs:
    """Keeps the backlog of every deployment where something waits, and which have a worker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._found: Mapping[UUID, Backlog] = {}
        self._live: frozenset[UUID] | None = None
        self._task: asyncio.Task[None] | None = None

    def now(self) -> Mapping[UUID, Backlog]:
        """By deployment; none where nothing waits, or where it could not be read."""
        return self._found

    def live(self) -> frozenset[UUID] | None:
        """Deployments with a ready worker; None while that is not known."""
        return self._live

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
                    rows, live = await self._link.read(_read)
                self._found = {deployment: Backlog.of(*rest) for deployment, *rest in rows}
                self._live = frozenset(deployment for (deployment,) in live)
            except (psycopg.Error, TimeoutError) as fault:
                # Whoever knows nothing refuses nobody.
                self._found, self._live = {}, None
                log.warning("backlogs.unread", error=str(fault))
            await asyncio.sleep(_EVERY_SECONDS)
