"""Delivers what is due: claims it under a lease, sends it, writes down what came back.

One event loop of its own carries all calls of a process, so that a slow receiver holds no thread.
At most so many calls of one tenant are under way, and at most so many of all.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import httpx
import msgspec
import psycopg
import structlog

from inference.gateway.link import Link
from inference.models.jobs import JobState
from inference.models.webhooks import WebhookState
from inference.payloads import Ciphers
from inference.webhooks import signing, store
from inference.webhooks.messages import event_message, job_message
from inference.webhooks.schedule import retry_seconds
from inference.webhooks.sender import TOTAL_SECONDS, Outcome, send
from inference.webhooks.store import Due
from portal.core.crypto import InvalidCiphertext
from portal.core.ids import uuid7
from portal.core.outgoing import Targets

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 60.0
SLOTS_A_TENANT: Final = 8
assert LEASE_SECONDS > 2 * TOTAL_SECONDS, "an attempt is over before another sender may follow"


class Deliverer:
    """Sends the due webhooks of all tenants as ``portal_gateway``; all of it on one event loop.

    Args:
        ciphers: of the purpose ``services.PURPOSE``.
        slots: how many calls are under way at once.
        lease_seconds: how long a claimed delivery is left to its sender.
    """

    def __init__(
        self,
        database_url: str,
        *,
        ciphers: Ciphers,
        targets: Targets,
        slots: int,
        lease_seconds: float = LEASE_SECONDS,
        slots_a_tenant: int = SLOTS_A_TENANT,
    ) -> None:
        self._link = Link(database_url, "webhooks")
        self._ciphers = ciphers
        self._targets = targets
        self._lease_seconds = lease_seconds
        self._slots = slots
        self._slots_a_tenant = slots_a_tenant
        self._busy: Counter[UUID] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._claiming = asyncio.Lock()

    async def round(self) -> int:
        """Claims what is due and there is room for, and begins to send it; returns how many.

        Each one that ends makes room for the next, so a round leaves nothing due behind.

        Raises:
            psycopg.Error: the database is away; the next round makes up for it.
        """
        async with self._claiming:
            room = self._slots - self._busy.total()
            if room <= 0:
                return 0
            claimed, secrets = await self._link.use(lambda c: self._claim(c, room))
            for due in claimed:
                self._busy[due.tenant_id] += 1
                task = asyncio.create_task(self._deliver(due, secrets.get(due.tenant_id, [])))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return len(claimed)

    async def idle(self) -> None:
        """Waits until nothing is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """Ends what is under way; the leases of it run out, and another sender follows."""
        for task in self._tasks:
            task.cancel()
        await self.idle()
        await self._link.close()

    async def _claim(
        self, connection: psycopg.AsyncConnection[Any], room: int
    ) -> tuple[list[Due], dict[UUID, list[str]]]:
        cursor = await connection.execute(
            store.CLAIM,
            {
                "busy": msgspec.json.encode({str(t): n for t, n in self._busy.items()}).decode(),
                "a_tenant": self._slots_a_tenant,
                "slots": room,
                "lease": self._lease_seconds,
            },
        )
        claimed = [_due(row) for row in await cursor.fetchall()]
        if not claimed:
            return [], {}
        tenants = list({due.tenant_id for due in claimed})
        rows = await (await connection.execute(store.SECRETS, [tenants])).fetchall()
        return claimed, self._unsealed(rows)

    def _unsealed(self, rows: Sequence[tuple[Any, ...]]) -> dict[UUID, list[str]]:
        secrets: dict[UUID, list[str]] = {}
        for tenant_id, row_id, version, wrapped, sealed in rows:
            try:
                secret = self._ciphers.of(tenant_id, version, wrapped).decrypt(
                    sealed, row_id=row_id
                )
            except InvalidCiphertext as fault:
                log.error("webhook_secret.unreadable", row_id=str(row_id), error=str(fault))
                continue
            secrets.setdefault(tenant_id, []).append(secret.decode())
        return secrets

    async def _deliver(self, due: Due, secrets: list[str]) -> None:
        try:
            sent_at = datetime.now(UTC)
            outcome = await self._attempt(due, secrets, sent_at)
            await self._link.use(lambda c: _write(c, due, outcome, sent_at))
        except psycopg.Error as fault:
            # The lease runs out, and it is sent again under the same id.
            log.warning("webhook.unsettled", delivery_id=str(due.id), error=str(fault))
        finally:
            self._busy[due.tenant_id] -= 1
            if not self._busy[due.tenant_id]:
                del self._busy[due.tenant_id]
        await self._next_round()

    async def _next_round(self) -> None:
        try:
            await self.round()
        except psycopg.Error as fault:
            log.warning("webhooks.unclaimed", error=str(fault))

    async def _attempt(self, due: Due, secrets: list[str], sent_at: datetime) -> Outcome:
        try:
            cipher = self._ciphers.of(due.tenant_id, due.data_key_version, due.wrapped)
            url = httpx.URL(cipher.decrypt(due.sealed_url, row_id=due.id).decode())
        except InvalidCiphertext:
            return Outcome(None, "The callback URL can't be decrypted.", 0)
        if not secrets:
            # Never unsigned: the receiver could not tell it from a forgery.
            return Outcome(None, "The tenant has no signing secret that can be read.", 0)
        webhook_id = signing.message_id(due.id)
        body = _body(webhook_id, due)
        headers = signing.signed_headers(
            secrets, webhook_id=webhook_id, timestamp=int(sent_at.timestamp()), body=body
        )
        return await send(url, headers, body, self._targets)


def _body(webhook_id: str, due: Due) -> bytes:
    if due.told is not None:
        at = datetime.fromisoformat(due.told["at"])
        return event_message(webhook_id, event=due.told["type"], at=at, data=due.told["data"])
    assert due.job_id is not None, "a delivery tells of a job, or of something else"
    return job_message(
        webhook_id,
        job_id=due.job_id,
        state=JobState(due.state),
        model=due.model,
        finished_at=due.finished_at,
        finish_reason=due.finish_reason,
        prompt_tokens=due.prompt_tokens,
        completion_tokens=due.completion_tokens,
        error_code=due.error_code,
        error_message=due.error_message,
        metadata=due.metadata,
    )


def _due(row: Sequence[Any]) -> Due:
    return Due(**dict(zip(Due.__struct_fields__, row, strict=True)))


async def _write(
    connection: psycopg.AsyncConnection[Any], due: Due, outcome: Outcome, sent_at: datetime
) -> None:
    state, delay = _verdict(due, outcome)
    await connection.execute(
        store.OUTCOME,
        {
            "id": due.id,
            "tenant_id": due.tenant_id,
            "attempt": due.attempt,
            "state": state.value,
            "delay": delay,
            "sent_at": sent_at,
            "milliseconds": outcome.milliseconds,
            "status": outcome.status,
            "error": outcome.error,
            "attempt_id": uuid7(),
            "event_id": uuid7(),
        },
    )
    log.info(
        "webhook.sent",
        delivery_id=str(due.id),
        receiver=due.origin,
        attempt=due.attempt,
        status=outcome.status,
        state=state.name.lower(),
        milliseconds=outcome.milliseconds,
    )


def _verdict(due: Due, outcome: Outcome) -> tuple[WebhookState, float]:
    """The delivery's next state, and the seconds until the next attempt."""
    if outcome.delivered:
        return WebhookState.DELIVERED, 0.0
    delay = None if outcome.gone else retry_seconds(due.tries, random.random())  # noqa: S311
    return (WebhookState.FAILED, 0.0) if delay is None else (WebhookState.PENDING, delay)


class DelivererThread:
    """A deliverer on an event loop in a thread of its own, for callers that have none."""

    def __init__(self, deliverer: Deliverer) -> None:
        self._deliverer = deliverer
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="webhooks", daemon=True).start()

    def round(self, within: float = 10.0) -> int:
        """``Deliverer.round``; returns once everything is claimed, not once it is sent.

        Raises:
            TimeoutError: the database did not answer for ``within`` seconds.
        """
        return asyncio.run_coroutine_threadsafe(self._deliverer.round(), self._loop).result(within)
