"""A gateway process: its connections, its desk, its waiting room."""

import asyncio
import contextlib
import time
from typing import Any, Final, Self

import psycopg
import structlog

from inference.batches.content import file_ciphers
from inference.dispatch import Ringer
from inference.gateway.backlogs import Backlogs
from inference.gateway.batchstore import BatchStore
from inference.gateway.catalogue import Catalogue
from inference.gateway.desk import AdmissionDesk
from inference.gateway.filestore import FileStore
from inference.gateway.jobs import Canceller, statuses
from inference.gateway.link import Link
from inference.gateway.metrics import GatewayMetrics
from inference.gateway.reader import ReturnReader
from inference.gateway.silence import tell
from inference.gateway.uses import KeyUses
from inference.gateway.waiting import WaitingRoom
from inference.payloads import Ciphers
from portal.core.boot import refuse_unbound_role
from portal.core.crypto import Keyring, Peppers
from portal.core.env import Env
from portal.core.http import trusted_networks
from portal.core.ids import uuid7
from portal.core.resp import RespLink

log = structlog.get_logger(__name__)

SILENCE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25


class Gateway:
    """Everything the data plane's endpoints share; an async context manager."""

    def __init__(self, env: Env) -> None:
        url = env.database_url("gateway")
        refuse_unbound_role(url)
        self.id = uuid7().hex
        self.max_body_bytes = env.max_body_bytes
        self.queue_seconds = env.queue_timeout_seconds
        self.proxies = tuple(trusted_networks(env.trusted_proxies))
        self._admission = Link(url, "gateway-admission")
        self._queries = Link(url, "gateway-queries")
        self._cancels = Link(url, "gateway-cancels")
        self._stored = Link(url, "gateway-files")
        self._broker = RespLink(env.redis_url.get_secret_value())
        keyring = Keyring.parse(env.encryption_keys.get_secret_value())
        self._ciphers = Ciphers(keyring)
        self.max_file_bytes = env.max_file_bytes
        self.file_seconds = env.file_days * 24 * 3600
        self.files = FileStore(
            self._stored, file_ciphers(keyring), most_bytes=env.max_tenant_file_bytes
        )
        self.batches = BatchStore(self._stored, most_live=env.max_live_batches)
        self._ringer = Ringer(self._broker)
        self.metrics = GatewayMetrics()
        self.room = WaitingRoom(self.metrics.left)
        self.canceller = Canceller(self._cancels, self._broker)
        self.catalogue = Catalogue(self._queries)
        self.backlogs = Backlogs(self._queries)
        self.reader = ReturnReader(env.redis_url.get_secret_value(), self.id, self.room.deliver)
        self.uses = KeyUses(self._queries)
        self.desk = AdmissionDesk(
            self._admission,
            gateway=self.id,
            peppers=Peppers.parse(env.api_key_peppers.get_secret_value()),
            ciphers=self._ciphers,
            job_seconds=env.queue_timeout_seconds,
            running=self.room.__len__,
            backlogs=self.backlogs.now,
            live=self.backlogs.live,
            ring=self._ringer.ring,
            abandon=self.canceller.cancel_all,
            used=self.uses.note,
            committed=self.metrics.committed,
        )
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.reader.start()
        self.backlogs.start()
        self.uses.start()
        self._watch = asyncio.create_task(self._watch_silence(), name="silence-watch")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self.backlogs.stop()
        await self.desk.close()
        await self.uses.stop()
        await self.canceller.close()
        await self.reader.stop()
        for link in (self._admission, self._queries, self._cancels, self._stored):
            await link.close()
        self._broker.close()

    def connections_opened(self) -> dict[str, int]:
        """How many connections each part has made since the start."""
        return {
            "admission": self._admission.opened,
            "queries": self._queries.opened,
            "cancels": self._cancels.opened,
            "broker": self._broker.opened,
            "returns": self.reader.opened,
        }

    async def ready(self, query: str) -> list[Any]:
        """Rows of a health query over the connection that serves look-ups."""

        async def work(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
            cursor = await connection.execute(query)
            return list(await cursor.fetchall())

        return await self._queries.read(work)

    async def _watch_silence(self) -> None:
        """Asks PostgreSQL about jobs that have been silent for a second."""
        while True:
            due = time.perf_counter() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            self.metrics.loop_lag.observe(max(0.0, time.perf_counter() - due))
            silent = self.room.silent(SILENCE_SECONDS)
            if not silent:
                continue
            try:
                found = await statuses(self._queries, self._ciphers, [w.job_id for w in silent])
            except psycopg.Error as fault:
                log.warning("silence.unanswered", error=str(fault))
                continue
            tell(silent, found)
