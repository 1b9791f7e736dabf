"""A batch on the bench: its gateway's part, its steps, and a worker, each called by hand."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from inference.batches.content import CHUNK_BYTES, file_ciphers
from inference.batches.steps import take_step
from inference.gateway.admission import Allowed, Call
from inference.gateway.batchstore import BatchStore
from inference.gateway.calls import CREATE_BATCH, Part, Pending
from inference.gateway.filestore import FileStore, Upload
from inference.gateway.keys import KeyFacts
from inference.gateway.wire.batches import BatchFacts, parse_batch
from inference.gateway.wire.objects import file_name
from inference.models import Batch, BatchState, JobState
from portal.core.actors import Context
from portal.core.crypto import Keyring
from portal.core.env import env
from portal.core.tenancy import tenant_scope
from tenants.services import CreatedKey
from tests.inference.bench import Bench, credential, origin
from tests.inference.jobs.support import body

ENDPOINT = "/v1/chat/completions"
DAYS = 30 * 24 * 3600
ALWAYS_DUE = datetime(2000, 1, 1, tzinfo=UTC)
NEVER_DUE = datetime(3000, 1, 1, tzinfo=UTC)
RESTS: dict[UUID, datetime] = {}
"""When the next step of each batch would have been due, as its last one left it."""


def line(bench: Bench, custom_id: str, *, prompt: str = "hi", **changes: Any) -> bytes:
    """A line of an input file."""
    request = {
        "custom_id": custom_id,
        "method": "POST",
        "url": ENDPOINT,
        "body": json.loads(body(bench, prompt=prompt)),
        **changes,
    }
    return json.dumps(request).encode() + b"\n"


def with_body(bench: Bench, custom_id: str, **changes: Any) -> bytes:
    """A line whose request is changed."""
    return line(bench, custom_id, body=json.loads(body(bench, **changes)))


def step_alone(tenant_id: UUID, batch_id: UUID) -> bool:
    """The next step of a batch that no worker of a running portal finds due."""
    with tenant_scope(Context.system("tests", tenant_id=tenant_id)):
        found = Batch.objects.filter(pk=batch_id)
        found.update(wake_at=ALWAYS_DUE, feed_at=None)
        taken = take_step(tenant_id, batch_id)
        RESTS[batch_id] = found.values_list("wake_at", flat=True).get()
        found.update(wake_at=NEVER_DUE)
    return taken


class _Within:
    """A link whose every use is part of one transaction."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def use(self, work: Any) -> Any:
        return await work(self._connection)

    read = use


@dataclass(slots=True)
class Made:
    """One batch, and what its steps, its workers and its caller do."""

    bench: Bench
    key: KeyFacts
    files: FileStore
    batches: BatchStore
    id: UUID
    input_id: UUID
    seen: list[UUID] = field(default_factory=list)

    @property
    def facts(self) -> BatchFacts:
        """The batch as its caller reads it."""
        facts: BatchFacts = self.bench.run(self.batches.find(self.key, self.id))
        return facts

    @property
    def state(self) -> BatchState:
        return BatchState(self.facts.state)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Total, completed, failed."""
        facts = self.facts
        return facts.total, facts.completed, facts.failed

    def step(self) -> bool:
        """The next step, whether or not it is due."""
        return step_alone(self.key.tenant_id, self.id)

    def steps(self, until: BatchState, most: int = 50) -> None:
        """Steps until the batch is in a state."""
        for _ in range(most):
            if self.state == until:
                return
            self.step()
        raise AssertionError(f"{self.facts} never came to {until.name}")

    def jobs(self) -> list[dict[str, Any]]:
        """Every job that was ever made for it."""
        return self.bench.rows(
            "SELECT * FROM inference_job WHERE request_id = %s ORDER BY id",
            f"batch_{self.id.hex}",
        )

    def work(self, limit: int = 1000) -> int:
        """A worker answers what waits; how many jobs."""
        taken = self.bench.claim(limit)
        for job in taken:
            cipher = self.bench.ciphers.of(job.tenant_id, job.data_key_version, job.data_key)
            sealed = cipher.encrypt(f"answer {job.id}".encode(), row_id=job.id)
            self.bench.end(
                job, JobState.SUCCEEDED, tokens=2, answer=base64.b64encode(sealed).decode()
            )
        return len(taken)

    def finish(self) -> None:
        """Steps and workers in turn until the batch has ended."""
        for _ in range(200):
            if self.facts.ended_at is not None:
                return
            self.step()
            self.work()
        raise AssertionError(f"{self.facts} never ended")

    def cancel(self) -> None:
        self.bench.run(self.batches.cancel(self.key, self.id))

    def expire(self) -> None:
        """Its completion window has passed."""
        self.bench.superuser.execute(
            "UPDATE inference_batch SET expires_at = clock_timestamp() WHERE id = %s", [self.id]
        )

    def results(self) -> list[dict[str, Any]]:
        return self._lines(self.facts.output_file_id)

    def errors(self) -> list[dict[str, Any]]:
        return self._lines(self.facts.error_file_id)

    def _lines(self, file_id: UUID | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []

        async def read() -> bytes:
            facts = await self.files.find(self.key, file_id)
            pieces = [await self.files.chunk(self.key, facts, n) for n in range(facts.chunks)]
            content = b"".join(pieces)
            assert len(content) == facts.size
            return content

        return [json.loads(text) for text in self.bench.run(read()).splitlines()]


def make_batch(bench: Bench, key: CreatedKey, lines: Iterable[bytes] | bytes) -> Made:
    """A batch of an input file, as a gateway makes it."""
    content = lines if isinstance(lines, bytes) else b"".join(lines)
    link = bench._queries
    ciphers = file_ciphers(Keyring.parse(env().encryption_keys.get_secret_value()))
    files = FileStore(link, ciphers, most_bytes=10**9)
    batches = BatchStore(link, most_live=100)
    call = Call(credential(key))
    asked = Pending(CREATE_BATCH, origin(), call, datetime.now(UTC), part=Part.BEGINNING)
    (verdict,) = bench.submit([asked])
    assert isinstance(verdict, Allowed)

    async def make() -> tuple[UUID, UUID]:
        upload = Upload(files, verdict.key)
        await upload.begin()
        for at in range(0, len(content), CHUNK_BYTES):
            await upload.add(content[at : at + CHUNK_BYTES])
        facts = await upload.finish("in.jsonl", DAYS)
        body = json.dumps(
            {
                "input_file_id": file_name(facts.id),
                "endpoint": ENDPOINT,
                "completion_window": "24h",
            }
        )
        url = bench.servers.url("gateway")
        async with await psycopg.AsyncConnection.connect(url) as connection:
            within = BatchStore(_Within(connection), most_live=100)  # type: ignore[arg-type]
            made = await within.create(verdict.key, parse_batch(body.encode()))
            await connection.execute(
                "UPDATE inference_batch SET wake_at = %s WHERE id = %s", [NEVER_DUE, made.id]
            )
        return made.id, facts.id

    batch_id, input_id = bench.run(make())
    return Made(bench, verdict.key, files, batches, batch_id, input_id)
