"""What a call reserves: its prompt and the longest answer that it can get."""

from typing import Any

import psycopg

from tests import factories
from tests.factories import Organisation
from tests.live import FAKE_CONTEXT, LivePortal

DEFAULT = 64


def reserved(
    portal: LivePortal, superuser: psycopg.Connection, organisation: Organisation, **body: Any
) -> tuple[int, int]:
    """Prompt tokens of a call, and tokens that were reserved for its answer."""
    with portal.client(factories.api_key(organisation).token) as client:
        answer = client.post("/v1/chat/completions", json={"model": "fake-chat", **body})
    assert answer.status_code == 200, answer.text
    row = superuser.execute(
        "SELECT prompt_tokens, reserved_tokens - prompt_tokens FROM inference_job "
        "WHERE request_id = %s",
        [answer.headers["x-request-id"]],
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def message(characters: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x" * characters}]}


def test_reserve_for_a_call_with_max_tokens_takes_them(
    live_portal: LivePortal, owner_sql: psycopg.Connection, tenant_a: Organisation
) -> None:
    assert reserved(live_portal, owner_sql, tenant_a, **message(5), max_tokens=7)[1] == 7


def test_reserve_for_a_call_without_max_tokens_takes_the_deployments_default(
    live_portal: LivePortal, owner_sql: psycopg.Connection, tenant_a: Organisation
) -> None:
    assert reserved(live_portal, owner_sql, tenant_a, **message(5))[1] == DEFAULT


def test_reserve_for_a_call_without_max_tokens_takes_no_more_than_the_context_leaves(
    live_portal: LivePortal, owner_sql: psycopg.Connection, tenant_a: Organisation
) -> None:
    around = reserved(live_portal, owner_sql, tenant_a, **message(1))[0] - 1
    room = DEFAULT // 2
    long = message(FAKE_CONTEXT - around - room)
    prompt, answer = reserved(live_portal, owner_sql, tenant_a, **long)
    assert (prompt, answer) == (FAKE_CONTEXT - room, room)
