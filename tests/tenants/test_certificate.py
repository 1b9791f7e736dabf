"""The certificate of a deletion says what happened, and what is altered is noticed."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command

from portal.core.actors import Context
from portal.core.errors import NotFound
from tenants.closing import registry
from tenants.closing.certificate import exported
from tenants.services import (
    find_certificate,
    verify_certificate,
)
from tests.factories import TESTS, Organisation
from tests.isolation.rows import Populated, insert, new_row
from tests.tenants.closings import close, finish, full_tenant, made_export


@pytest.fixture
def closed(database: None, owner_sql: psycopg.Connection) -> Populated:
    """A tenant that was exported and closed."""
    full = full_tenant(owner_sql, "certified")
    made_export(full)
    close(full.organisation)
    finish(full.id)
    return full


def content_of(closed: Populated) -> bytes:
    return exported(find_certificate(context=TESTS, tenant_id=closed.id))


def failed(content: bytes) -> list[str]:
    """The checks that do not pass."""
    return [f.check for f in verify_certificate(context=TESTS, content=content) if not f.passed]


def test_certificate_says_what_was_erased_and_kept(
    closed: Populated, owner_sql: psycopg.Connection
) -> None:
    document = json.loads(content_of(closed))["certificate"]
    assert document["tenant"]["slug"] == closed.organisation.tenant.slug
    assert document["decision"]["by"] == TESTS.actor.label
    assert document["decision"]["reason"] == "the contract ended"
    erased = {step["what"]: step["count"] for step in document["deletion"]["erased"]}
    assert set(erased) == {eraser.name for eraser in registry.erasers()}
    assert (erased["tenants_membership"], erased["inference_job"], erased["exports"]) == (4, 1, 1)
    assert [key["version"] for key in document["deletion"]["data_keys"]] == [1]
    ledger = document["kept"]["ledger"]
    assert (ledger["entries"], ledger["prompt_tokens"], ledger["completion_tokens"]) == (4, 4, 4)
    assert ledger["cost_nano"] == {"EUR": 15, "USD": 1}
    audit = document["kept"]["audit"]
    counted = owner_sql.execute(
        "SELECT count(*) FROM audit_event WHERE tenant_id = %s AND xid < %s::xid8",
        [closed.id, audit["below_transaction"]],
    ).fetchone()
    assert counted == (audit["events"],)
    (export,) = document["exports"]
    assert export["sha256"]


def test_certificate_is_in_the_trail_with_its_digest(
    closed: Populated, owner_sql: psycopg.Connection
) -> None:
    row = owner_sql.execute(
        "SELECT b.detail ->> 'sha256' FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.tenant_id = %s AND e.action = 'tenant.closed'",
        [closed.id],
    ).fetchone()
    assert row == (json.loads(content_of(closed))["sha256"],)


def test_verify_certificate_as_it_was_issued_passes(closed: Populated, tmp_path: Path) -> None:
    file = tmp_path / "certificate.json"
    file.write_bytes(content_of(closed))
    said = StringIO()
    call_command("verify_certificate", str(file), stdout=said)
    assert "FAILED" not in said.getvalue()
    assert said.getvalue().count("ok") == 8


def test_verify_certificate_that_was_altered_fails(closed: Populated, tmp_path: Path) -> None:
    def alter(path: list[str], value: Any) -> bytes:
        file = json.loads(content_of(closed))
        at = file
        for name in path[:-1]:
            at = at[name]
        assert at[path[-1]] != value
        at[path[-1]] = value
        return json.dumps(file).encode()

    altered = [
        alter(["certificate", "decision", "by"], "somebody else"),
        alter(["certificate", "kept", "ledger", "entries"], 3),
        alter(["certificate", "tenant", "name"], "Another"),
        alter(["sha256"], "0" * 64),
        alter(["seal", "hmac_sha256"], "0" * 64),
        alter(["seal", "pepper"], 999),
        alter(["certificate", "format"], "another"),
        b"no certificate",
        b"[]",
    ]
    for content in altered:
        assert failed(content) != [], content[:200]
    file = tmp_path / "altered.json"
    file.write_bytes(altered[0])
    with pytest.raises(CommandError):
        call_command("verify_certificate", str(file), stdout=StringIO())


def test_verify_certificate_after_ledger_or_trail_were_changed_fails(
    closed: Populated, owner_sql: psycopg.Connection
) -> None:
    content = content_of(closed)
    assert failed(content) == []
    charge = new_row("tenants_ledgerentry", closed.organisation, {})
    insert(owner_sql, "tenants_ledgerentry", charge)
    assert failed(content) == ["the ledger is the one that was kept"]
    owner_sql.execute("SET session_replication_role = replica")
    owner_sql.execute(
        "UPDATE audit_event SET reason = 'x' WHERE tenant_id = %s AND action = 'tenant.close'",
        [closed.id],
    )
    owner_sql.execute("RESET session_replication_role")
    assert "the audit trail is the one that was kept" in failed(content)


def test_verify_certificate_after_later_events_still_passes(
    closed: Populated, owner_sql: psycopg.Connection
) -> None:
    insert(owner_sql, "audit_event", new_row("audit_event", closed.organisation, {}))
    assert failed(content_of(closed)) == []


def test_verify_certificate_of_a_tenant_with_rows_left_fails(
    closed: Populated, owner_sql: psycopg.Connection
) -> None:
    owner_sql.execute("SET session_replication_role = replica")
    insert(owner_sql, "tenants_apikey", new_row("tenants_apikey", closed.organisation, {}))
    owner_sql.execute("RESET session_replication_role")
    assert failed(content_of(closed)) == ["nothing that was erased is there tenants_apikey"]


def test_change_certificate_is_refused_to_everyone(
    closed: Populated, owner_sql: psycopg.Connection
) -> None:
    for statement in ("UPDATE tenants_tenantcertificate SET document = '{}' WHERE tenant_id = %s",
                      "DELETE FROM tenants_tenantcertificate WHERE tenant_id = %s"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner_sql.execute(statement, [closed.id])


def test_find_certificate_of_an_open_tenant_is_not_found(
    tenant_a: Organisation, tenant_b: Organisation, audit_admin: Context
) -> None:
    for context in (tenant_a.context, tenant_b.context, audit_admin):
        with pytest.raises(NotFound):
            find_certificate(context=context, tenant_id=tenant_a.id)
