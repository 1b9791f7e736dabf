"""The hot path without its processes: admission, claims and settlement, called by hand.

Each step is the product's own code on the session's PostgreSQL; only time, the engine and the
broker are left out, so that a test decides in which order things happen.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from inference.backlog import Backlog
from inference.engines.base import Message
from inference.fallback import Move, moved, send_moves
from inference.gateway.admission import Admitted, Ask, Call, Verdict
from inference.gateway.calls import CHAT, Generation, Origin, Pending
from inference.gateway.catalogue import Catalogue, Routed, Served
from inference.gateway.desk import AdmissionDesk
from inference.gateway.jobs import Canceller
from inference.gateway.keys import Credential
from inference.gateway.link import Link
from inference.gateway.options import prepare_options
from inference.gateway.uses import KeyUses
from inference.models.jobs import JobState
from inference.payloads import Ciphers, Prompt
from inference.prompts import PromptEncoder
from inference.settlement import Settled, Settlement, settle, settled
from inference.sweeper import Sweep, Sweeper
from inference.worker import claims
from inference.worker.claims import Claimed, Progress
from portal.core.crypto import Keyring, Peppers
from portal.core.env import env
from portal.core.ids import uuid7
from tenants import api_key_format
from tenants.services import CreatedKey
from tests import live
from tests.factories import unique
from tests.servers import SessionServers

GATEWAY = "bench-gateway"
LIVE = (JobState.QUEUED, JobState.RUNNING)


def credential(key: CreatedKey, session_key: str | None = None) -> Credential:
    """What a caller with this key sends."""
    parsed = api_key_format.parse(key.token)
    assert parsed is not None
    return Credential(parsed.public_id, parsed.secret, session_key)


def origin() -> Origin:
    return Origin(f"req-{uuid7().hex}", None, "192.0.2.7")


@dataclass(slots=True)
class Broker:
    """Stands in for Redis where a test needs none: keeps what was published."""

    published: list[tuple[str, bytes]]

    async def call(self, command: str, channel: str, message: bytes) -> None:
        assert command == "PUBLISH"
        self.published.append((channel, message))


class Bench:
    """One deployment, one gateway's desk, one worker's connection."""

    def __init__(
        self, servers: SessionServers, *, desk_url: str | None = None, job_seconds: float = 600
    ) -> None:
        self.servers = servers
        self.deployed = live.deploy(servers, unique("bench"))
        self._runner = asyncio.Runner()
        url = servers.url("gateway")
        self.link = Link(desk_url or url, "bench-admission")
        self._queries = Link(url, "bench-queries")
        self.rung: list[set[str]] = []
        self.backlogs: dict[UUID, Backlog] = {}
        self.broker = Broker([])
        self.ciphers = Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()))
        self.canceller = Canceller(self._queries, self.broker)  # type: ignore[arg-type]
        self.uses = KeyUses(self._queries)
        self.desk = self.run(self._make_desk(job_seconds))
        self.served = self.run(self._serve())
        self.worker = psycopg.connect(url, autocommit=True)
        self.superuser = psycopg.connect(servers.url("superuser"), autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self._close())
        self._runner.close()
        self.worker.close()
        self.superuser.close()

    def run(self, work: Any) -> Any:
        """Runs a coroutine on the bench's loop."""
        return self._runner.run(work)

    async def _make_desk(self, job_seconds: float) -> AdmissionDesk:
        return AdmissionDesk(
            self.link,
            gateway=GATEWAY,
            peppers=Peppers.parse(env().api_key_peppers.get_secret_value()),
            ciphers=self.ciphers,
            job_seconds=job_seconds,
            running=lambda: 0,
            backlogs=lambda: self.backlogs,
            ring=self.rung.append,
            abandon=self.canceller.cancel_all,
            used=self.uses.note,
            committed=lambda size, seconds: None,
        )

    async def _serve(self) -> Served:
        served = await Catalogue(self._queries).find(self.deployed.model)
        assert isinstance(served, Served)
        return served

    async def _close(self) -> None:
        await self.desk.close()
        await self.canceller.close()
        await self.link.close()
        await self._queries.close()

    # -- admission -------------------------------------------------------------------------

    def pending(
        self,
        caller: Credential | None,
        *,
        prompt: str = "hi",
        max_tokens: int = 8,
        stream: bool = False,
        call_origin: Origin | None = None,
        served: Served | None = None,
    ) -> Pending:
        """A chat completion on its way to the desk."""
        messages = (Message("user", prompt),)
        served = served or self.served
        assert isinstance(served.encoder, PromptEncoder)
        ids = served.encoder.encode(messages)
        ask = Ask(
            served.model_id,
            served.model_name,
            served.deployment_id,
            len(ids),
            max_tokens,
            served.prompt_price,
            served.completion_price,
        )
        parameters = {"max_tokens": max_tokens}
        generation = Generation(served, Prompt(ids, messages), max_tokens, stream, parameters)
        call = Call(caller, ask)
        return Pending(CHAT, call_origin or origin(), call, datetime.now(UTC), generation)

    def pending_route(self, caller: Credential, name: str, **options: Any) -> Pending:
        """A chat completion that asks for a name with a choice of deployments."""
        named = self.run(Catalogue(self._queries).find(name))
        assert isinstance(named, Routed)

        async def prepare(served: Served) -> tuple[Generation, Ask]:
            pending = self.pending(caller, served=served, **options)
            assert pending.generation is not None
            assert pending.call.ask is not None
            return pending.generation, pending.call.ask

        choice, found = self.run(prepare_options(named, prepare))
        call = Call(caller, choice=choice)
        return Pending(CHAT, origin(), call, datetime.now(UTC), options=found)

    def submit(self, pendings: Sequence[Pending]) -> list[Verdict | BaseException]:
        """What the desk says to calls that arrive at once."""

        async def all_at_once() -> list[Verdict | BaseException]:
            submitted = [self.desk.submit(p) for p in pendings]
            return await asyncio.gather(*submitted, return_exceptions=True)

        verdicts: list[Verdict | BaseException] = self.run(all_at_once())
        return verdicts

    def admit(self, caller: Credential, count: int = 1, **options: Any) -> list[UUID]:
        """Admits jobs of one caller, and returns their ids; none may be refused."""
        verdicts = self.submit([self.pending(caller, **options) for _ in range(count)])
        assert all(isinstance(v, Admitted) for v in verdicts), verdicts
        return [v.job_id for v in verdicts if isinstance(v, Admitted)]

    def cancel(self, job_id: UUID) -> None:
        """Cancels as a gateway does whose caller went away; returns when the database knows."""

        async def until_heard() -> None:
            self.canceller.cancel(job_id)
            await asyncio.wait(set(self.canceller._tasks))

        self.run(until_heard())

    # -- a worker --------------------------------------------------------------------------

    def claim(
        self, limit: int = 1, *, worker: str = "w1", lease: float = 60.0, floor: int = 0
    ) -> list[Claimed]:
        """Claims waiting jobs for a while of ``lease`` seconds."""
        return claim(self.worker, self.served.deployment_id, limit, worker, lease, floor)

    def renew(self, *progress: Progress, lease: float = 60.0) -> dict[UUID, bool]:
        """Which of these jobs are still the worker's, and whether each is to be cancelled."""
        cursor = claims.send_renewal(self.worker, progress, lease_seconds=lease)
        return claims.renewed(cursor)

    def release(self, *jobs: Claimed, forgive: bool = False) -> None:
        claims.send_release(self.worker, [(j.id, j.fence) for j in jobs], forgive=forgive)

    def settle(self, *settlements: Settlement) -> list[Settled]:
        """The jobs that these settlements ended."""
        with self.worker.transaction():
            return settled(settle(self.worker, settlements))

    def move(self, *moves: Move) -> dict[UUID, str]:
        """The jobs that were moved, and the queues they wait in."""
        with self.worker.transaction():
            ids = [m.job_id for m in moves]
            return moved(send_moves(self.worker, moves, with_windows_of=ids))

    def end(self, job: Claimed, state: JobState, tokens: int = 0, **more: Any) -> list[Settled]:
        """Ends a claimed job as its worker would."""
        return self.settle(
            Settlement(
                job.id,
                JobState.RUNNING,
                state,
                completion_tokens=tokens,
                fence=job.fence,
                **more,
            )
        )

    # -- time ------------------------------------------------------------------------------

    def lapse(self, *job_ids: UUID) -> None:
        """Lets the leases of running jobs run out."""
        self.superuser.execute(
            "UPDATE inference_job SET lease_until = clock_timestamp() - interval '1 second' "
            "WHERE id = ANY(%s) AND state = 1",
            [list(job_ids)],
        )

    def expire(self, *job_ids: UUID) -> None:
        """Lets the deadlines of jobs pass."""
        self.superuser.execute(
            "UPDATE inference_job SET deadline = clock_timestamp() - interval '1 second' "
            "WHERE id = ANY(%s)",
            [list(job_ids)],
        )

    def sweep(self, max_attempts: int = 3) -> Sweep:
        sweeper = Sweeper(
            self.servers.url("gateway"), self.servers.valkey.url(), max_attempts=max_attempts
        )
        try:
            return sweeper.sweep()
        finally:
            sweeper.close()

    # -- what is true ----------------------------------------------------------------------

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        """Rows as a superuser sees them."""
        cursor = self.superuser.cursor(row_factory=dict_row)
        return cursor.execute(query, parameters).fetchall()

    def job(self, job_id: UUID) -> dict[str, Any]:
        """A job's row."""
        (row,) = self.rows("SELECT * FROM inference_job WHERE id = %s", job_id)
        return row

    def outcomes(self, job_id: UUID) -> list[tuple[str, str]]:
        """Outcome and reason of each audit event of a job, in order."""
        rows = self.rows(
            "SELECT outcome, reason FROM audit_event WHERE object_id = %s ORDER BY recorded_at, id",
            str(job_id),
        )
        return [(row["outcome"], row["reason"]) for row in rows]

    def charges(self, job_id: UUID) -> list[tuple[int, int]]:
        """Prompt and completion tokens of each ledger entry of a job."""
        rows = self.rows(
            "SELECT prompt_tokens, completion_tokens FROM tenants_ledgerentry WHERE job_id = %s",
            job_id,
        )
        return [(row["prompt_tokens"], row["completion_tokens"]) for row in rows]

    def payloads(self, *job_ids: UUID) -> int:
        (row,) = self.rows(
            "SELECT count(*) AS n FROM inference_jobpayload WHERE job_id = ANY(%s)", list(job_ids)
        )
        return int(row["n"])

    def window(self, tenant_id: UUID) -> dict[str, Any]:
        """The counters of a tenant's own quota."""
        (row,) = self.rows(
            "SELECT w.* FROM tenants_quotawindow w JOIN tenants_quota q ON q.id = w.quota_id "
            "WHERE q.tenant_id = %s AND q.user_id IS NULL AND q.api_key_id IS NULL "
            "AND q.model_id IS NULL",
            tenant_id,
        )
        return row


def claim(
    connection: psycopg.Connection,
    deployment_id: UUID,
    limit: int,
    worker: str = "w1",
    lease: float = 60.0,
    floor: int = 0,
    *,
    lightly: bool = False,
) -> list[Claimed]:
    """Claims over any connection."""
    cursor = claims.send_claim(
        connection,
        deployment_id=deployment_id,
        worker=worker,
        limit=limit,
        lease_seconds=lease,
        floor=floor,
        lightly=lightly,
    )
    return claims.claimed(cursor)
