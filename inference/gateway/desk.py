"""Admission's desk: batches calls, decides them in one transaction, rings for the admitted.

Nothing is answered before its rows are committed. If a batch fails it is tried again singly, so
that one bad row never fails its neighbours; if the database or the audit trail refuses, the call
is refused.
"""

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import structlog

from inference.gateway import store
from inference.gateway.admission import Admitted, Call, KeyFacts, Ledger, Verdict, decide
from inference.gateway.calls import Pending, audit_rows
from inference.gateway.link import Link
from inference.gateway.wire import errors
from inference.payloads import Ciphers, fingerprint_text, pack_prompt
from inference.pipelining import AsyncPipe
from portal.core.batching import NaturalBatcher
from portal.core.crypto import Cipher, InvalidCiphertext, Peppers

log = structlog.get_logger(__name__)

_MAX_BATCH = 128


@dataclass(slots=True)
class _Attempt:
    """How far a transaction came before its connection failed."""

    job_ids: list[UUID] = field(default_factory=list)
    committing: bool = False


def _is_a_rows_fault(fault: Exception) -> bool:
    """Whether the database refused something in the batch, rather than being away."""
    return isinstance(fault, psycopg.Error) and not isinstance(fault, psycopg.OperationalError)


class AdmissionDesk:
    """Takes calls, gives verdicts."""

    def __init__(
        self,
        link: Link,
        *,
        gateway: str,
        peppers: Peppers,
        ciphers: Ciphers,
        job_seconds: float,
        ring: Callable[[set[str]], None],
        abandon: Callable[[Sequence[UUID]], None],
    ) -> None:
        self._link = link
        self._gateway = gateway
        self._peppers = peppers
        self._ciphers = ciphers
        self._job_time = timedelta(seconds=job_seconds)
        self._ring = ring
        self._abandon = abandon
        self._batcher: NaturalBatcher[Pending, Verdict] = NaturalBatcher(
            self._commit, max_batch=_MAX_BATCH, retry_singly=_is_a_rows_fault
        )

    def submit(self, pending: Pending) -> Awaitable[Verdict]:
        """The verdict on one call, once its rows are committed."""
        return self._batcher.submit(pending)

    async def close(self) -> None:
        await self._batcher.close()

    async def _commit(self, batch: Sequence[Pending]) -> Sequence[Verdict]:
        verdicts = await self._try(batch)
        queues = {
            pending.generation.served.queue
            for pending, verdict in zip(batch, verdicts, strict=True)
            if isinstance(verdict, Admitted) and pending.generation is not None
        }
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
        deployments = {c.ask.deployment_id for c in calls if c.ask is not None}
        pipe.execute("BEGIN")
        ledger = await store.read(pipe, list(keys), list(deployments), self._peppers)
        verdicts = decide([self._readable(call, ledger) for call in calls], ledger)
        writes = self._writes(batch, verdicts, ledger)
        attempt.job_ids = [v.job_id for v in verdicts if isinstance(v, Admitted)]
        attempt.committing = True
        store.write(pipe, writes)
        pipe.execute("COMMIT")
        await pipe.finish()
        return verdicts

    def _writes(
        self, batch: Sequence[Pending], verdicts: Sequence[Verdict], ledger: Ledger
    ) -> store.Writes:
        writes = store.Writes(
            store.window_rows(ledger.windows), store.share_rows(ledger.shares), [], [], [], []
        )
        for pending, verdict in zip(batch, verdicts, strict=True):
            fingerprint = None
            if isinstance(verdict, Admitted):
                fingerprint = self._add_job(writes, pending, verdict, ledger.now)
            events, bodies = audit_rows(pending, verdict, ledger.now, fingerprint)
            writes.events += events
            writes.bodies += bodies
        return writes

    def _add_job(
        self, writes: store.Writes, pending: Pending, verdict: Admitted, now: datetime
    ) -> str:
        """Adds the job and its encrypted prompt; returns the prompt's fingerprint."""
        generation, ask, key = pending.generation, pending.call.ask, verdict.key
        assert generation is not None, "only generations are admitted"
        assert ask is not None
        served = generation.served
        writes.jobs.append(
            {
                "id": verdict.job_id,
                "tenant_id": key.tenant_id,
                "deployment_id": served.deployment_id,
                "model_id": served.model_id,
                "api_key_id": key.id,
                "user_id": key.user_id,
                "sku": served.sku,
                "stream": generation.stream,
                "parameters": generation.parameters,
                "request_id": pending.origin.request_id,
                "gateway": self._gateway,
                "quota_ids": verdict.quota_ids,
                "prompt_tokens": ask.prompt_tokens,
                "reserved_tokens": ask.tokens,
                "reserved_cost": ask.cost,
                "prompt_price": ask.prompt_price,
                "completion_price": ask.completion_price,
                "currency": served.currency,
                "start_tag": verdict.start_tag,
                "admitted_at": now,
                "deadline": now + self._job_time,
            }
        )
        cipher = self._cipher(key)
        plain = pack_prompt(generation.prompt)
        writes.payloads.append(
            {
                "id": verdict.job_id,
                "tenant_id": key.tenant_id,
                "data_key_version": key.data_key_version,
                "prompt": base64.b64encode(cipher.encrypt(plain, row_id=verdict.job_id)).decode(),
            }
        )
        return cipher.fingerprint(fingerprint_text(generation.prompt)).hex()

    def _readable(self, call: Call, ledger: Ledger) -> Call:
        """The call, refused if its tenant's data key can't be used: it must fail alone."""
        if call.ask is None or call.credential is None:
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
