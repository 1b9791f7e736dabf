"""Last uses as a gateway gathers and writes them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from msgspec.structs import replace

from inference.gateway.admission import Refused
from inference.gateway.keys import Credential
from inference.gateway.link import Link
from inference.gateway.uses import KeyUses
from portal.core.ids import uuid7
from tenants import api_key_format
from tenants.services import create_api_key, rotate_api_key, set_quota
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential
from tests.inference.gateway.deciding import key

NOWHERE = "postgresql://portal_gateway@/portal?host=/nonexistent"


def uses(bench: Bench, api_key_id: UUID) -> dict[int, datetime]:
    rows = bench.rows("SELECT * FROM tenants_apikeyuse WHERE api_key_id = %s", api_key_id)
    return {row["generation"]: row["last_used_at"] for row in rows}


def write(bench: Bench) -> None:
    bench.run(bench.uses.write())


def test_writes_the_last_use_of_the_generation_that_was_used(
    bench: Bench, tenant_a: Organisation
) -> None:
    first = factories.api_key(tenant_a)
    second = rotate_api_key(context=tenant_a.context, api_key_id=first.api_key.id)
    before = datetime.now(UTC)
    bench.admit(credential(first), 3)
    assert uses(bench, first.api_key.id) == {}
    write(bench)
    written = uses(bench, first.api_key.id)
    assert set(written) == {1}
    assert before <= written[1] <= datetime.now(UTC)
    bench.admit(credential(second))
    write(bench)
    both = uses(bench, first.api_key.id)
    assert set(both) == {1, 2}
    assert both[1] == written[1] < both[2]


def test_writes_keys_of_many_tenants_in_one_statement(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    keys = [factories.api_key(tenant) for tenant in (tenant_a, tenant_b, tenant_a)]
    for made in keys:
        bench.admit(credential(made))
    write(bench)
    rows = bench.rows(
        "SELECT tenant_id, xmin::text AS transaction FROM tenants_apikeyuse "
        "WHERE api_key_id = ANY(%s)",
        [made.api_key.id for made in keys],
    )
    assert sorted(row["tenant_id"] for row in rows) == sorted(
        [tenant_a.id, tenant_a.id, tenant_b.id]
    )
    assert len({row["transaction"] for row in rows}) == 1


def test_writes_nothing_where_nothing_was_used(bench: Bench, tenant_a: Organisation) -> None:
    made = factories.api_key(tenant_a)
    bench.admit(credential(made))
    write(bench)
    bench.superuser.execute(
        "DELETE FROM tenants_apikeyuse WHERE api_key_id = %s", [made.api_key.id]
    )
    write(bench)
    assert uses(bench, made.api_key.id) == {}


def test_counts_a_refused_call_with_the_right_secret_and_none_with_a_wrong_one(
    bench: Bench, tenant_a: Organisation
) -> None:
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, requests_day=0)
    right, wrong = factories.api_key(tenant_a), factories.api_key(tenant_a)
    forged = api_key_format.parse(api_key_format.generate(wrong.api_key.public_id).token)
    assert forged is not None
    sent = [credential(right), Credential(forged.public_id, forged.secret)]
    verdicts = bench.submit([bench.pending(caller) for caller in sent])
    assert all(isinstance(verdict, Refused) for verdict in verdicts)
    write(bench)
    assert set(uses(bench, right.api_key.id)) == {1}
    assert uses(bench, wrong.api_key.id) == {}


def test_never_moves_a_last_use_backwards(bench: Bench, tenant_a: Organisation) -> None:
    made = factories.api_key(tenant_a)
    facts = key(id=made.api_key.id, tenant_id=tenant_a.id)
    now = datetime.now(UTC)
    for at in (now, now - timedelta(seconds=5)):
        bench.uses.note(facts, at)
        write(bench)
    for at in (now + timedelta(seconds=9), now + timedelta(seconds=3)):
        bench.uses.note(facts, at)
    assert uses(bench, made.api_key.id) == {1: now}
    write(bench)
    assert uses(bench, made.api_key.id) == {1: now + timedelta(seconds=9)}


def test_keeps_what_it_could_not_write_for_the_next_time(
    bench: Bench, tenant_a: Organisation
) -> None:
    made = factories.api_key(tenant_a)
    now = datetime.now(UTC)
    lost = KeyUses(Link(NOWHERE, "nowhere"))
    lost.note(key(id=made.api_key.id, tenant_id=tenant_a.id), now)
    bench.run(lost.write())
    lost._link = bench._queries
    bench.run(lost.write())
    assert uses(bench, made.api_key.id) == {1: now}


def test_drops_rows_that_the_database_refuses_and_goes_on(
    bench: Bench, tenant_a: Organisation
) -> None:
    made = factories.api_key(tenant_a)
    now = datetime.now(UTC)
    bench.uses.note(key(id=uuid7(), tenant_id=tenant_a.id), now)
    write(bench)
    bench.uses.note(key(id=made.api_key.id, tenant_id=tenant_a.id), now)
    write(bench)
    assert uses(bench, made.api_key.id) == {1: now}


def test_admits_calls_while_uses_cannot_be_written(bench: Bench, tenant_a: Organisation) -> None:
    made = factories.api_key(tenant_a)
    bench.uses._link = Link(NOWHERE, "nowhere")
    bench.admit(credential(made))
    write(bench)
    bench.admit(credential(made))
    bench.uses._link = bench._queries
    write(bench)
    assert set(uses(bench, made.api_key.id)) == {1}


def test_stop_writes_what_is_left(bench: Bench, tenant_a: Organisation) -> None:
    made = factories.api_key(tenant_a)

    async def serve() -> None:
        bench.uses.start()
        bench.uses.note(key(id=made.api_key.id, tenant_id=tenant_a.id), datetime.now(UTC))
        await bench.uses.stop()

    bench.run(serve())
    assert set(uses(bench, made.api_key.id)) == {1}


def test_records_a_call_from_a_wrong_network_and_reserves_nothing(
    bench: Bench, tenant_a: Organisation
) -> None:
    made = create_api_key(
        context=tenant_a.context,
        name="bound",
        scopes=["inference"],
        allowed_networks=["192.0.2.0/24"],
    )
    there = credential(made)
    here = replace(there, address="192.0.2.7")
    before = bench.window(tenant_a.id)
    (refused,) = bench.submit([bench.pending(there)])
    assert isinstance(refused, Refused)
    assert refused.error.error_status == 403
    assert bench.window(tenant_a.id) == before
    (event,) = bench.rows(
        "SELECT e.tenant_id, e.outcome, e.reason, b.detail FROM audit_event e "
        "JOIN audit_body b ON b.event_id = e.id WHERE e.api_key_id = %s",
        made.api_key.id,
    )
    assert (event["tenant_id"], event["outcome"]) == (tenant_a.id, "denied")
    assert event["reason"] == "network_not_allowed"
    assert event["detail"]["key_generation"] == 1
    bench.admit(here)


def test_write_as_gateway_may_add_and_move_uses_but_not_remove_them(
    bench: Bench, tenant_a: Organisation, gateway_sql: psycopg.Connection
) -> None:
    made = factories.api_key(tenant_a)
    bench.admit(credential(made))
    write(bench)
    for statement in (
        "DELETE FROM tenants_apikeyuse",
        "UPDATE tenants_apikey SET revoked_at = NULL",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            gateway_sql.execute(statement.encode())
