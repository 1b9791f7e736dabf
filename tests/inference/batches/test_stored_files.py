"""Files at rest: bounded for a tenant, bound to their place, gone when they have expired."""

from collections.abc import Iterator

import pytest

from inference.batches.content import CHUNK_BYTES
from inference.batches.sweep import sweep_files
from inference.gateway.filestore import FileStore, Upload
from inference.models import BatchState
from portal.core.crypto import InvalidCiphertext
from portal.core.errors import Invalid
from tests import factories
from tests.factories import Organisation
from tests.inference.batches.support import DAYS, Made, line, make_batch
from tests.inference.bench import Bench
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


@pytest.fixture
def made(bench: Bench, tenant_a: Organisation) -> Made:
    """A batch whose input has three chunks."""
    lines = [line(bench, f"id-{n}", prompt="x" * 200_000) for n in range(12)]
    return make_batch(bench, factories.api_key(tenant_a), lines)


def chunks(made: Made) -> int:
    (row,) = made.bench.rows(
        "SELECT count(*) AS n FROM inference_filechunk WHERE file_id = %s", made.input_id
    )
    return int(row["n"])


def expire(made: Made) -> None:
    made.bench.superuser.execute(
        "UPDATE inference_file SET expires_at = now() - interval '1 second' WHERE id = %s",
        [made.input_id],
    )


def sweep(made: Made) -> None:
    sweep_files(made.bench.servers.url("gateway"))


def test_sweep_drops_what_has_expired_and_keeps_the_rest(made: Made) -> None:
    made.cancel()
    made.steps(BatchState.CANCELLED)
    sweep(made)
    assert chunks(made) == 3
    expire(made)
    sweep(made)
    assert chunks(made) == 0
    (row,) = made.bench.rows("SELECT * FROM inference_file WHERE id = %s", made.input_id)
    assert (row["state"], row["filename"]) == (2, "")


def test_sweep_keeps_the_input_of_a_batch_that_has_not_ended(made: Made) -> None:
    expire(made)
    sweep(made)
    assert chunks(made) == 3
    made.finish()
    assert made.counts[1:] == (0, 12)
    sweep(made)
    assert chunks(made) == 0


def test_sweep_drops_uploads_that_never_ended_after_a_day(made: Made) -> None:
    upload = Upload(made.files, made.key)

    async def begin() -> None:
        await upload.begin()
        await upload.add(b"half")

    made.bench.run(begin())
    kept = "SELECT 1 FROM inference_file WHERE id = %s"
    sweep(made)
    assert made.bench.rows(kept, upload.file_id) != []
    made.bench.superuser.execute(
        "UPDATE inference_file SET created_at = now() - interval '2 days' WHERE id = %s",
        [upload.file_id],
    )
    sweep(made)
    assert made.bench.rows(kept, upload.file_id) == []


@pytest.mark.parametrize(
    "change",
    [
        (
            "UPDATE inference_filechunk SET number = number + 10 WHERE file_id = %(f)s; "
            "UPDATE inference_filechunk SET number = CASE number WHEN 10 THEN 1 WHEN 11 THEN 0 "
            "ELSE 2 END WHERE file_id = %(f)s"
        ),
        "DELETE FROM inference_filechunk WHERE file_id = %(f)s AND number = 0",
    ],
)
def test_read_chunk_that_was_moved_or_removed_is_refused(made: Made, change: str) -> None:
    for statement in change.split("; "):
        made.bench.superuser.execute(statement.encode(), {"f": made.input_id})
    facts = made.bench.run(made.files.find(made.key, made.input_id))
    with pytest.raises(InvalidCiphertext):
        made.bench.run(made.files.chunk(made.key, facts, 0))


def test_upload_beyond_what_a_tenant_may_keep_is_refused(made: Made) -> None:
    taken = made.bench.run(made.files.find(made.key, made.input_id)).size
    bounded = FileStore(
        made.bench._queries, made.files.ciphers, most_bytes=taken + CHUNK_BYTES + 10
    )
    first, second = Upload(bounded, made.key), Upload(bounded, made.key)

    async def fill() -> None:
        await first.begin()
        await second.begin()
        await first.add(b"x" * CHUNK_BYTES)
        await second.add(b"x" * 10)
        await second.finish("full", DAYS)

    made.bench.run(fill())
    with pytest.raises(Invalid) as refused:
        made.bench.run(first.add(b"x"))
    assert refused.value.error_code == "file_storage_full"
    made.bench.run(first.abandon())
    assert first.file_id is not None
    gone = made.bench.rows("SELECT 1 FROM inference_filechunk WHERE file_id = %s", first.file_id)
    assert gone == []
