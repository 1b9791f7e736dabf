"""The limit: the same statements on the same rows in a bare loop, without HTTP, Celery, engine.

So many jobs are in flight as the gateway has callers. One connection admits whatever is free,
another settles what it claimed before and claims what was admitted, as gateway and worker do.

``python -m benchmarks.lib.limit IN_FLIGHT SECONDS`` with an API key on standard input prints jobs
a second.
"""

import asyncio
import base64
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import django
import psycopg
import uvloop

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from audit.models import Outcome  # noqa: E402
from benchmarks.lib.seed import LIMIT  # noqa: E402
from inference.gateway import store  # noqa: E402
from inference.gateway.admission import Ask, Ledger  # noqa: E402
from inference.gateway.rows import Row  # noqa: E402
from inference.models.jobs import JobState  # noqa: E402
from inference.pipelining import AsyncPipe  # noqa: E402
from inference.settlement import Settlement, statements  # noqa: E402
from inference.worker.claims import CLAIM  # noqa: E402
from portal.core.crypto import Peppers  # noqa: E402
from portal.core.env import env  # noqa: E402
from portal.core.ids import uuid7  # noqa: E402
from tenants import api_key_format  # noqa: E402

_PROMPT_TOKENS: Final = 64
_COMPLETION_TOKENS: Final = 16
_PROMPT_BYTES: Final = 300
_DEPLOYMENT: Final = "SELECT id, model_id FROM inference_deployment WHERE name = %s"


@dataclass
class _Loop:
    """Jobs in flight, by how far they have come."""

    free: int
    over: bool = False
    admitted_last: bool = False
    queued: int = 0
    settled: int = 0
    claimed: deque[tuple[UUID, int]] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, ready: Callable[[], bool]) -> None:
        while not (ready() or self.over):
            self.changed.clear()
            await self.changed.wait()


class _Rows:
    """What one admitted job writes."""

    def __init__(self, public_id: str, deployment_id: UUID, model_id: UUID) -> None:
        self.public_id = public_id
        self.deployment_id = deployment_id
        self._model_id = model_id
        self._prompt = base64.b64encode(os.urandom(_PROMPT_BYTES)).decode()
        self.ask = Ask(
            model_id, LIMIT, deployment_id, _PROMPT_TOKENS, _COMPLETION_TOKENS, 140_000, 280_000
        )

    def writes(self, ledger: Ledger, count: int) -> store.Writes:
        for window in ledger.windows:
            for _ in range(count):
                window.add(self.ask)
        return store.Writes(
            windows=store.window_rows(ledger.windows),
            shares=store.share_rows(ledger.shares),
            calls=[self._call(ledger) for _ in range(count)],
            now=ledger.now,
            deadline=ledger.now + timedelta(minutes=10),
            gateway="limit",
        )

    def _call(self, ledger: Ledger) -> Row:
        key, ask, job_id = ledger.keys[self.public_id], self.ask, uuid7()
        return Row(
            event_id=uuid7(),
            tenant_id=key.tenant_id,
            action="inference.chat",
            outcome=Outcome.REQUESTED.value,
            occurred_at=ledger.now,
            request_id=f"req-{job_id.hex}",
            api_key_id=key.id,
            key_name=key.name,
            address="127.0.0.1",
            detail={
                "stream": False,
                "parameters": {"max_tokens": _COMPLETION_TOKENS},
                "prompt_tokens": ask.prompt_tokens,
                "max_tokens": _COMPLETION_TOKENS,
                "prompt_hmac": job_id.hex,
            },
            job_id=job_id,
            deployment_id=self.deployment_id,
            model_id=self._model_id,
            user_id=key.user_id,
            sku="bench-limit@1",
            parameters={"max_tokens": _COMPLETION_TOKENS},
            quota_ids=tuple(window.quota_id for window in ledger.windows),
            prompt_tokens=ask.prompt_tokens,
            reserved_tokens=ask.tokens,
            reserved_cost=ask.cost,
            prompt_price=ask.prompt_price,
            completion_price=ask.completion_price,
            currency="USD",
            data_key_version=key.data_key_version,
            prompt=self._prompt,
        )


async def _admit(pipe: AsyncPipe, loop: _Loop, rows: _Rows, peppers: Peppers) -> None:
    while not loop.over:
        await loop.until(lambda: loop.free > 0)
        count = loop.free
        if not count:
            break
        ledger = await store.read(pipe, [rows.public_id], [rows.deployment_id], peppers)
        store.write(pipe, rows.writes(ledger, count))
        await pipe.finish()
        loop.free -= count
        loop.queued += count
        loop.changed.set()
    loop.admitted_last = True
    loop.changed.set()


async def _work(pipe: AsyncPipe, loop: _Loop, deployment_id: UUID) -> None:
    emptied = False
    while not (loop.admitted_last and emptied):
        await loop.until(lambda: loop.queued > 0 or bool(loop.claimed) or loop.admitted_last)
        ending = list(loop.claimed)
        # Read before the claim is sent: what is admitted meanwhile is for the next one.
        admitted_last = loop.admitted_last
        if ending:
            _send_settlement(pipe, ending)
        claim = {
            "deployment": deployment_id,
            "worker": "limit",
            "limit": 128,
            "lease": 60,
            "floor": 0,
        }
        claiming = pipe.execute(CLAIM, claim)
        await pipe.finish()
        taken = [(row[0], row[2]) for row in claiming.fetchall()]
        emptied = not taken and admitted_last
        loop.claimed = deque(taken)
        loop.queued -= len(taken)
        loop.free += len(ending)
        loop.settled += len(ending)
        loop.changed.set()


def _send_settlement(pipe: AsyncPipe, ending: list[tuple[UUID, int]]) -> None:
    now = datetime.now(UTC)
    settlements = [
        Settlement(
            job_id,
            JobState.RUNNING,
            JobState.SUCCEEDED,
            completion_tokens=_COMPLETION_TOKENS,
            fence=fence,
            finish_reason="stop",
            first_token_at=now,
        )
        for job_id, fence in ending
    ]
    for query, parameters in statements(settlements):
        pipe.execute(query, parameters)


async def _measure(url: str, public_id: str, in_flight: int, seconds: float) -> float:
    peppers = Peppers({1: bytes(32)})
    admitting = await psycopg.AsyncConnection.connect(url, autocommit=True)
    working = await psycopg.AsyncConnection.connect(url, autocommit=True)
    async with admitting, working:
        row = await (await admitting.execute(_DEPLOYMENT, [LIMIT])).fetchone()
        assert row is not None
        rows = _Rows(public_id, *row)
        loop = _Loop(in_flight)
        async with asyncio.TaskGroup() as group:
            group.create_task(_admit(AsyncPipe(admitting), loop, rows, peppers))
            group.create_task(_work(AsyncPipe(working), loop, rows.deployment_id))
            # The first half second prepares statements and fills caches.
            await asyncio.sleep(0.5)
            began, before = time.perf_counter(), loop.settled
            await asyncio.sleep(seconds)
            rate = (loop.settled - before) / (time.perf_counter() - began)
            loop.over = True
            loop.changed.set()
        return rate


def main() -> None:
    url = env().database_url_gateway
    parsed = api_key_format.parse(sys.stdin.readline().strip())
    if url is None or parsed is None:
        raise SystemExit("The loop needs DATABASE_URL_GATEWAY, and an API key on standard input.")
    in_flight, seconds = int(sys.argv[1]), float(sys.argv[2])
    print(uvloop.run(_measure(url.get_secret_value(), parsed.public_id, in_flight, seconds)))


if __name__ == "__main__":
    main()
