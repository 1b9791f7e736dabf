"""A tenant's things in one file: whole, of one moment, encrypted, for those alone who may."""

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from portal.core.actors import Context
from portal.core.crypto import InvalidCiphertext, new_data_key
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy.snapshots import tenant_snapshot
from tenants.closing import exporting
from tenants.closing.exporting import expire_export, make_export
from tenants.closing.files import folder_of, path_of
from tenants.closing.registry import export_parts
from tenants.closing.sealed import SealedReader, SealedWriter
from tenants.models import TenantExport
from tenants.services import newest_export, open_export, request_export
from tests.factories import TESTS, Organisation
from tests.isolation.rows import Populated, insert, new_row
from tests.servers import SessionServers
from tests.tenants.closings import close, finish, finished_export, full_tenant, made_export


@pytest.fixture
def full(database: None, owner_sql: psycopg.Connection) -> Populated:
    return full_tenant(owner_sql, "export")


def archive_of(full: Populated, export: TenantExport) -> zipfile.ZipFile:
    context = full.organisation.context
    _, file = open_export(context=context, tenant_id=full.id, export_id=export.pk)
    content = file.read()
    assert hashlib.sha256(content).hexdigest() == export.sha256
    assert len(content) == export.size
    return zipfile.ZipFile(io.BytesIO(content))


def lines(archive: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in archive.read(name).decode().splitlines()]


def test_export_holds_what_the_manifest_says(full: Populated) -> None:
    archive = archive_of(full, made_export(full))
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["tenant_id"] == str(full.id)
    names = {file["name"] for file in manifest["files"]} | {"manifest.json"}
    assert names == set(archive.namelist())
    assert names >= {"tenant.jsonl", "members.jsonl", "keys.jsonl", "quotas.jsonl",
                     "ledger.jsonl", "jobs.jsonl", "audit.jsonl"}  # fmt: skip
    for file in manifest["files"]:
        content = archive.read(file["name"])
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content) == file["bytes"]
        assert len(content.splitlines()) == file["rows"]


def test_export_holds_all_rows_of_the_tenant_and_no_secret(
    full: Populated, tenant_b: Organisation, owner_sql: psycopg.Connection
) -> None:
    archive = archive_of(full, made_export(full))
    assert {m["role"] for m in lines(archive, "members.jsonl")} == {
        "owner", "developer", "viewer", "auditor"
    }  # fmt: skip
    assert len(lines(archive, "ledger.jsonl")) == 4
    assert lines(archive, "audit.jsonl")[0]["action"] != ""
    keys = lines(archive, "keys.jsonl")
    assert {name for key in keys for name in key if "hmac" in name or "pepper" in name} == set()
    everything = b"".join(archive.read(name) for name in archive.namelist())
    assert str(tenant_b.id).encode() not in everything
    hashes = owner_sql.execute(
        "SELECT encode(wrapped, 'hex') FROM tenants_tenantdatakey WHERE tenant_id = %s "
        "UNION SELECT password FROM tenants_user WHERE id = %s",
        [full.id, full.organisation.owner.user.id],
    ).fetchall()
    assert [h for (h,) in hashes if h.encode() in everything] == []


def test_export_lies_on_the_disk_encrypted_and_closed_to_others(full: Populated) -> None:
    path = path_of(made_export(full))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    content = path.read_bytes()
    assert b"PK\x03\x04" not in content
    assert full.organisation.tenant.slug.encode() not in content
    assert [p for p in path.parent.iterdir() if p != path] == []


def test_fetch_export_that_was_altered_ends_with_an_error(full: Populated) -> None:
    export = made_export(full)
    path = path_of(export)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    _, file = open_export(context=full.organisation.context, tenant_id=full.id)
    with pytest.raises(InvalidCiphertext):
        file.read()


def test_export_is_for_the_owner_and_the_system_administrator(
    full: Populated, tenant_b: Organisation, system_admin: Context, security_admin: Context,
    audit_admin: Context,
) -> None:  # fmt: skip
    export = made_export(full)
    a = full.organisation
    for context in (a.developer.context, a.viewer.context, a.auditor.context, security_admin,
                    audit_admin):  # fmt: skip
        for verb in (request_export, newest_export, open_export):
            with pytest.raises(Forbidden):
                verb(context=context, tenant_id=full.id)
    for verb in (request_export, newest_export, open_export):
        with pytest.raises(NotFound):
            verb(context=tenant_b.context, tenant_id=full.id)
    assert open_export(context=system_admin, tenant_id=full.id)[0].pk == export.pk


def test_export_records_who_asked_and_who_fetched(
    full: Populated, owner_sql: psycopg.Connection, system_admin: Context
) -> None:
    export = made_export(full)
    open_export(context=system_admin, tenant_id=full.id)
    events = owner_sql.execute(
        "SELECT action, actor_label FROM audit_event WHERE tenant_id = %s AND object_id = %s "
        "ORDER BY recorded_at",
        [full.id, str(export.pk)],
    ).fetchall()
    assert events == [
        ("tenant.export", full.organisation.owner.user.email),
        ("tenant.export_make", "export"),
        ("tenant.export_fetch", system_admin.actor.label),
    ]


def test_ask_for_export_while_one_is_made_is_refused(
    full: Populated, owner_sql: psycopg.Connection
) -> None:
    context = full.organisation.context
    running = new_row("tenants_tenantexport", full.organisation, {})
    lease = datetime.now(UTC) + timedelta(hours=1)
    insert(owner_sql, "tenants_tenantexport", running | {"state": "waiting", "lease_until": lease})
    with pytest.raises(Conflict):
        request_export(context=context, tenant_id=full.id)
    with pytest.raises(NotFound):
        open_export(context=context, tenant_id=full.id)
    assert not make_export(full.id, running["id"])


def test_export_past_its_time_is_deleted(full: Populated, owner_sql: psycopg.Connection) -> None:
    export = made_export(full)
    expire_export(full.id, export.pk)
    assert path_of(export).exists()
    owner_sql.execute(
        "UPDATE tenants_tenantexport SET expires_at = now() - interval '1 second' WHERE id = %s",
        [export.pk],
    )
    expire_export(full.id, export.pk)
    assert not path_of(export).exists()
    with pytest.raises(NotFound):
        open_export(context=full.organisation.context, tenant_id=full.id)


def test_export_that_a_killed_worker_left_is_made_anew_three_times_at_most(
    full: Populated, owner_sql: psycopg.Connection
) -> None:
    context = full.organisation.context
    row = new_row("tenants_tenantexport", full.organisation, {})
    folder_of(full.id).mkdir(mode=0o700, parents=True)
    half = folder_of(full.id) / f"{row['id']}.zip.1"
    half.write_bytes(b"half")
    lapsed = datetime.now(UTC) - timedelta(seconds=1)
    insert(owner_sql, "tenants_tenantexport", row | {"state": "running", "lease_until": lapsed})
    export = finished_export(context, full.id, row["id"])
    assert (export.state, export.attempts) == ("ready", 2)
    assert not half.exists()
    owner_sql.execute(
        "UPDATE tenants_tenantexport SET state = 'running', attempts = 3, lease_until = %s "
        "WHERE id = %s",
        [lapsed, row["id"]],
    )
    assert finished_export(context, full.id, row["id"]).state == "failed"
    assert not path_of(export).exists()


def test_close_tenant_deletes_its_export_files_and_refuses_new_ones(full: Populated) -> None:
    export = made_export(full)
    close(full.organisation, grace_days=0)
    assert archive_of(full, export).testzip() is None
    finish(full.id)
    assert not folder_of(full.id).exists()
    with pytest.raises(Conflict):
        request_export(context=TESTS, tenant_id=full.id)


def test_export_of_many_rows_holds_one_batch_of_them_at_a_time(
    full: Populated, owner_sql: psycopg.Connection
) -> None:
    """Rows come from a cursor on the server: no batch, and no statement, is larger."""
    # So long ago that no test of usage adds them up.
    owner_sql.execute(
        "INSERT INTO tenants_ledgerentry (id, tenant_id, job_id, model_id, sku, prompt_tokens, "
        "completion_tokens, cost, currency, measure, admitted_at, recorded_at) "
        "SELECT gen_random_uuid(), %s, gen_random_uuid(), gen_random_uuid(), 'm@1', 1, 1, 1, 'USD',"
        " 'measured', '1999-06-01', now() FROM generate_series(1, 30000)",
        [full.id],
    )
    part = next(p for p in export_parts() if p.name == "ledger.jsonl")
    context = Context.system("export", tenant_id=full.id)
    with tenant_snapshot(context):
        batches = exporting._batches(context, part)
        sizes = [len(next(batches))]
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_cursors")
            assert cursor.fetchone() == (1,)
        sizes += [len(batch) for batch in batches]
    assert sum(sizes) == 30004
    assert max(sizes) == exporting.FETCH_ROWS
    export = made_export(full)
    assert export.rows_total is not None
    assert export.rows_total > 30004
    assert len(lines(archive_of(full, export), "ledger.jsonl")) == 30004


def test_snapshot_sees_nothing_that_is_committed_later(
    full: Populated, servers: SessionServers
) -> None:
    context = Context.system("export", tenant_id=full.id)
    count = "SELECT count(*) FROM tenants_ledgerentry"
    with (
        psycopg.connect(servers.url("superuser"), autocommit=True) as other,
        tenant_snapshot(context),
        connection.cursor() as cursor,
    ):
        cursor.execute(count)
        before = cursor.fetchone()
        other.execute(
            "INSERT INTO tenants_ledgerentry (id, tenant_id, job_id, model_id, sku, prompt_tokens, "
            "completion_tokens, cost, currency, measure, admitted_at, recorded_at) VALUES "
            "(gen_random_uuid(), %s, gen_random_uuid(), gen_random_uuid(), 'm', 1, 1, 1, 'USD', "
            "'measured', now(), now())",
            [full.id],
        )
        cursor.execute(count)
        assert cursor.fetchone() == before
        cursor.execute("SELECT pg_current_xact_id_if_assigned()")
        assert cursor.fetchone() == (None,)
    with tenant_snapshot(context), connection.cursor() as cursor:
        cursor.execute(count)
        assert cursor.fetchone() != before


def _sealed(pieces: list[bytes], key: bytes, file_id: UUID) -> bytes:
    file = io.BytesIO()
    writer = SealedWriter(file, key, file_id)
    for piece in pieces:
        writer.write(piece)
    writer.finish()
    return file.getvalue()


@given(sizes=st.lists(st.integers(min_value=0, max_value=600_000), max_size=4))
def test_sealed_file_is_read_as_it_was_written(sizes: list[int]) -> None:
    pieces = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    key, file_id = new_data_key(), uuid7()
    sealed = _sealed(pieces, key, file_id)
    reader = io.BufferedReader(SealedReader(io.BytesIO(sealed), key, file_id))
    assert reader.read() == b"".join(pieces)


def _frames(sealed: bytes) -> Iterator[bytes]:
    while sealed:
        end = 4 + int.from_bytes(sealed[:4])
        yield sealed[:end]
        sealed = sealed[end:]


def test_sealed_file_that_is_cut_or_reordered_is_refused() -> None:
    key, file_id = new_data_key(), uuid7()
    first, second, third = _frames(_sealed([b"a" * 600_000], key, file_id))
    wrong = {
        "cut": first + second,
        "cut in a frame": first + second + third[:-1],
        "reordered": second + first + third,
        "left out": first + third,
        "empty": b"",
    }
    for name, content in wrong.items():
        with pytest.raises(InvalidCiphertext):
            io.BufferedReader(SealedReader(io.BytesIO(content), key, file_id)).read()
            pytest.fail(name)
    for other_key, other_id in ((new_data_key(), file_id), (key, uuid7())):
        with pytest.raises(InvalidCiphertext):
            SealedReader(io.BytesIO(first + second + third), other_key, other_id).read(1)


def test_export_folder_is_in_the_data_folder(full: Populated) -> None:
    assert folder_of(full.id).is_relative_to(env().freehold_data_dir)
