"""When keys were last used, as a gateway gathers and writes it."""

import asyncio
import contextlib
from datetime import datetime
from typing import Any, Final

import psycopg
import structlog

from inference.gateway.keys import KeyFacts
from inference.gateway.link import Link
from tenants.key_uses import WRITE_EVERY_SECONDS, WRITE_USES, KeyUse, parameters

log = structlog.get_logger(__name__)

_LAST_WRITE_SECONDS: Final = 5.0


class KeyUses:
    """Gathers uses in memory and writes them in one statement; no call waits for it.

    A write that fails is logged, and what it held goes with the next one.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._times: dict[KeyUse, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, key: KeyFacts, at: datetime) -> None:
        """A caller proved that it holds this generation of the key's secret."""
        use = KeyUse(key.tenant_id, key.id, key.generation)
        last = self._times.get(use)
        if last is None or last < at:
            self._times[use] = at

    def start(self) -> None:
        self._task = asyncio.create_task(self._write_on(), name="key-uses")

    async def stop(self) -> None:
        """Writes what is left; gives up after some seconds, for a use is not worth more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        try:
            await asyncio.wait_for(self.write(), _LAST_WRITE_SECONDS)
        except TimeoutError:
            log.warning("key_uses.lost", keys=len(self._times))

    async def write(self) -> None:
        """Writes what was gathered since the last time."""
        if not self._times:
            return
        taken, self._times = self._times, {}

        async def work(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(WRITE_USES, parameters(taken))

        try:
            await self._link.use(work)
        except asyncio.CancelledError:
            self._keep(taken)
            raise
        except psycopg.OperationalError as fault:
            self._keep(taken)
            log.warning("key_uses.unwritten", keys=len(taken), error=str(fault))
        except psycopg.Error as fault:
            # These rows themselves are refused, and would be each time.
            log.error("key_uses.refused", keys=len(taken), error=str(fault))

    def _keep(self, taken: dict[KeyUse, datetime]) -> None:
        """Puts back what was not written; what came meanwhile is newer."""
        self._times = {**taken, **self._times}

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_SECONDS)
            await self.write()
