"""The pages of batches: how far they are, what went wrong, and who may end one."""

import json
from uuid import UUID

import psycopg
import pytest
from django.test import Client

from portal.core.actors import TenantRole
from tests import factories
from tests.factories import Organisation
from tests.isolation.rows import insert, new_row
from tests.site.test_pages import client_of

LIST = "/admin/inference/batch/"


def batch(owner_sql: psycopg.Connection, tenant: Organisation, **changes: object) -> UUID:
    """A batch of the tenant, as its row stands."""
    key = factories.api_key(tenant).api_key.pk
    file = new_row("inference_file", tenant, {"api_key_id": key})
    insert(owner_sql, "inference_file", file)
    references = {"api_key_id": key, "input_file_id": file["id"]}
    row = {**new_row("inference_batch", tenant, references), **changes}
    insert(owner_sql, "inference_batch", row)
    found: UUID = row["id"]
    return found


def running(owner_sql: psycopg.Connection, tenant: Organisation) -> UUID:
    return batch(
        owner_sql,
        tenant,
        state=1,
        ended_at=None,
        wake_at="3000-01-01",
        total=2000,
        completed=1200,
        failed=300,
        waiting_for="Rate limit reached for this tenant.",
    )


def page(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def test_list_without_a_batch_says_what_one_is(tenant_a: Organisation) -> None:
    assert "No batch yet" in page(client_of(tenant_a.owner.user), LIST)


def test_pages_of_a_running_batch_show_its_progress_and_what_it_waits_for(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = running(owner_sql, tenant_a)
    client = client_of(tenant_a.viewer.user)
    listed = page(client, LIST)
    assert "1,500 of 2,000" in listed
    assert "In progress" in listed
    shown = page(client, f"{LIST}{made}/")
    assert f"batch_{made.hex}" in shown
    assert "75 %" in shown
    assert "Rate limit reached for this tenant." in shown
    assert "Cancel batch" not in shown


def test_page_of_a_failed_batch_names_the_lines(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    fault = {"code": "duplicate_custom_id", "line": 4711, "message": "x", "param": "custom_id"}
    made = batch(owner_sql, tenant_a, state=5, errors=json.dumps([fault]))
    shown = page(client_of(tenant_a.owner.user), f"{LIST}{made}/")
    assert "4711" in shown
    assert "Another line has the same custom_id." in shown


def test_cancel_batch_asks_first_and_is_recorded(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = running(owner_sql, tenant_a)
    client = client_of(tenant_a.owner.user)
    path = f"{LIST}{made}/cancel/"
    assert "Answers that are there are kept" in page(client, path)
    state = "SELECT state, cancelling_at IS NOT NULL FROM inference_batch WHERE id = %s"
    assert owner_sql.execute(state, [made]).fetchone() == (1, False)
    assert client.post(path).status_code == 302
    # Its worker may have seen it already.
    cancelled = owner_sql.execute(state, [made]).fetchone()
    assert cancelled is not None
    assert cancelled[0] in (3, 7)
    assert cancelled[1]
    events = owner_sql.execute(
        "SELECT outcome, actor_label FROM audit_event WHERE action = 'batch.cancel' "
        "AND object_id = %s",
        [str(made)],
    ).fetchall()
    assert events == [("success", tenant_a.owner.user.email)]
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("role", [TenantRole.DEVELOPER, TenantRole.VIEWER])
def test_cancel_batch_by_somebody_who_may_not_is_refused(
    tenant_a: Organisation, owner_sql: psycopg.Connection, role: TenantRole
) -> None:
    made = running(owner_sql, tenant_a)
    client = client_of(tenant_a.member(role).user)
    assert client.post(f"{LIST}{made}/cancel/").status_code == 403
    row = owner_sql.execute("SELECT state FROM inference_batch WHERE id = %s", [made]).fetchone()
    assert row == (1,)


def test_pages_are_all_chinese_where_chinese_is_asked_for(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = running(owner_sql, tenant_a)
    client = client_of(tenant_a.owner.user)
    client.cookies["django_language"] = "zh-hans"
    shown = page(client, f"{LIST}{made}/")
    assert "取消批处理" in shown
    assert "正在等待余量" in shown
    for english in ("Cancel batch", "Progress", "Completed", "Endpoint"):
        assert english not in shown


def test_read_batches_on_the_management_api_shows_counts_and_filters_by_state(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    made = running(owner_sql, tenant_a)
    batch(owner_sql, tenant_a)
    client = client_of(tenant_a.developer.user)
    (shown,) = client.get("/api/v1/batches?state=in_progress").json()["items"]
    assert (shown["id"], shown["total"], shown["completed"]) == (str(made), 2000, 1200)
    assert client.get(f"/api/v1/batches/{made}").json() == shown
    assert client.get("/api/v1/batches?state=odd").status_code == 400
