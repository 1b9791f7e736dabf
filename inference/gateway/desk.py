"""Admission's desk: batches calls, decides them in one transaction, rings for the admitted.

Nothing is answered before its rows are committed. If a batch fails it is tried again singly, so
that one bad row never fails its neighbours; if the database or the audit trail refuses, the call
is refused.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg
import structlog
from msgspec.structs import replace

from inference.backlog import Backlog
from inference.gateway import store
from inference.gateway.admission import Admitted, Call, Ledger, Refused, Verdict, decide
from inference.gateway.calls import Pending
from inference.gateway.keys import KeyFacts
from inference.gateway.link import Link
from inference.gateway.rows import Row, admitted_row, allowed_rows, refused_row
from inference.gateway.wire import errors
from inference.payloads import Ciphers
from inference.pipelining import AsyncPipe
from portal.core.batching import NaturalBatcher
from portal.core.crypto import Cipher, InvalidCiphertext, Peppers

log = structlog.get_logger(__name__)

_LEAST_BATCH: Final = 16
_MOST_BATCH: Final = 128


@dataclass(slots=True)
class _Attempt:
    """How far a transaction came before its connection failed."""

    job_ids: list[UUID] = field(default_factory=list)
    committing: bool = False


def _is_a_rows_fault(fault: Exception) -> bool:
    """Whether the database refused something in the batch, rather than being away."""
    return isinstance(fault, psycopg.Error) and not isinstance(fault, psycopg.OperationalError)


class AdmissionDesk:
    """Takes calls, gives verdicts.

    Args:
        gateway: this process, by the name under which workers answer it.
        job_seconds: how long an admitted job may wait and run.
        running: how many admitted calls have not ended.
        backlogs: what waits for each deployment, as it was a moment ago.
        live: deployments that had a ready worker a moment ago; None while that is not known.
        ring: called with the queues of each batch, once it is committed.
        abandon: called with jobs that may have been admitted though their callers were told no.
        used: called with each key that a caller proved to hold, and when the call arrived.
        committed: called with the size of each batch and the seconds that its commit took.
    """

    def __init__(
        self,
        link: Link,
        *,
        gateway: str,
        peppers: Peppers,
        ciphers: Ciphers,
        job_seconds: float,
        running: Callable[[], int],
        backlogs: Callable[[], Mapping[UUID, Backlog]],
        live: Callable[[], frozenset[UUID] | None] = lambda: None,
        ring: Callable[[set[str]], None],
        abandon: Callable[[Sequence[UUID]], None],
        used: Callable[[KeyFacts, datetime], None],
        committed: Callable[[int, float], None],
    ) -> None:
        self._link = link
        self._gateway = gateway
        self._peppers = peppers
        self._ciphers = ciphers
        self._job_time = timedelta(seconds=job_seconds)
        self._ring = ring
        self._abandon = abandon
        self._used = used
        self._committed = committed
        self._running = running
        self._backlogs = backlogs
        self._live = live
        self._batcher: NaturalBatcher[Pending, Verdict] = NaturalBatcher(
            self._commit, size=self._batch_size, retry_singly=_is_a_rows_fault
        )

    def submit(self, pending: Pending) -> Awaitable[Verdict]:
        """The verdict on one call, once its rows are committed."""
        return self._batcher.submit(pending)

    async def close(self) -> None:
        await self._batcher.close()

    def _batch_size(self, waiting: int) -> int:
        """Half of the calls that are under way.

        If all were admitted together they would be worked on together, answered together and
        come again together: each side would be idle while the other works. Two halves take turns.
        """
        half = (waiting + self._running() + 1) // 2
        return max(_LEAST_BATCH, min(_MOST_BATCH, half))

    async def _commit(self, batch: Sequence[Pending]) -> Sequence[Verdict]:
        began = time.perf_counter()
        verdicts = await self._try(batch)
        self._committed(len(batch), time.perf_counter() - began)
        for pending, verdict in zip(batch, verdicts, strict=True):
            if verdict.key is not None:
                self._used(verdict.key, pending.arrived_at)
        admitted = [
            pending.served_by(verdict).generation
            for pending, verdict in zip(batch, verdicts, strict=True)
            if isinstance(verdict, Admitted)
        ]
        queues = {generation.served.queue for generation in admitted if generation is not None}
        if queues:
            self._ring(queues)
        return verdicts

    async def _try(self, batch: Sequence[Pending]) -> list[Verdict]:
        """One transaction; once more on a fresh connection if the old one was found dead."""
        for last in (False, True):
            attempt = _Attempt()
            try:
                return await self._link.pipe(
                    lambda pipe, attempt=attempt: self._transaction(  # type: ignore[misc]
                        pipe, batch, attempt
                    )
                )
            except psycopg.OperationalError:
                # If the commit was under way nobody knows whether it took effect: callers are
                # told no, so what it may have admitted is cancelled.
                if attempt.committing:
                    self._abandon(attempt.job_ids)
                if attempt.committing or last:
                    raise
        raise AssertionError("unreachable")

    async def _transaction(
        self,
        pipe: AsyncPipe,
        batch: Sequence[Pending],
        attempt: "_Attempt",
    ) -> list[Verdict]:
        calls = [pending.call for pending in batch]
        keys = {c.credential.public_id for c in calls if c.credential is not None}
        deployments = {d for c in calls for d in c.deployments()}
        ledger = await store.read(pipe, list(keys), list(deployments), self._peppers)
        ledger.backlogs = self._backlogs()
        ledger.live = self._live()
        verdicts = decide([self._readable(call, ledger) for call in calls], ledger)
        writes = self._writes(batch, verdicts, ledger)
        attempt.job_ids = [v.job_id for v in verdicts if isinstance(v, Admitted)]
        attempt.committing = True
        store.write(pipe, writes)
        await pipe.finish()
        return verdicts

    def _writes(
        self, batch: Sequence[Pending], verdicts: Sequence[Verdict], ledger: Ledger
    ) -> store.Writes:
        calls: list[Row] = []
        for pending, verdict in zip(batch, verdicts, strict=True):
            if isinstance(verdict, Admitted):
                chosen = pending.served_by(verdict)
                calls.append(admitted_row(chosen, verdict, self._cipher(verdict.key)))
            elif isinstance(verdict, Refused):
                calls.append(refused_row(pending, verdict))
            else:
                calls += allowed_rows(pending, verdict)
        return store.Writes(
            windows=store.window_rows(ledger.windows),
            shares=store.share_rows(ledger.shares),
            calls=calls,
            now=ledger.now,
            deadline=ledger.now + self._job_time,
            gateway=self._gateway,
        )

    def _readable(self, call: Call, ledger: Ledger) -> Call:
        """The call, refused if its tenant's data key can't be used: it must fail alone."""
        if (call.ask is None and call.choice is None) or call.credential is None:
            return call
        key = ledger.keys.get(call.credential.public_id)
        if key is not None:
            try:
                self._cipher(key)
            except InvalidCiphertext as fault:
                log.error("data_key.unusable", tenant_id=str(key.tenant_id), error=fault.message)
                return replace(call, refusal=errors.server_error())
        return call

    def _cipher(self, key: KeyFacts) -> Cipher:
        return self._ciphers.of(key.tenant_id, key.data_key_version, key.data_key)
