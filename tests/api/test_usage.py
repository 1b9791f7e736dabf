"""Usage over the API and on its page: whose it is, how it is split, and its export."""

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from portal.core.actors import PlatformRole
from portal.core.downloads import Download
from portal.core.errors import Invalid
from portal.core.ids import uuid7
from tenants.services import edit_tenant
from tenants.usage import Group, UsageQuery
from tests import factories
from tests.api.callers import Caller, Reply, key_caller, session_caller
from tests.factories import TESTS, Organisation
from tests.isolation.rows import insert
from tests.rollups import roll_up_all

DAY: Final = datetime(2025, 3, 10, tzinfo=UTC)
PERIOD: Final = "from=2025-03-01&to=2025-03-31"
Charge = Callable[..., None]


@pytest.fixture
def charge(owner_sql: psycopg.Connection) -> Charge:
    """Adds an entry to the ledger, for a request admitted at a moment of the past."""

    def add(tenant: Organisation, at: datetime, **more: Any) -> None:
        row = {
            "id": uuid7(), "tenant_id": tenant.id, "job_id": uuid7(), "model_id": UUID(int=7),
            "sku": "m@1", "prompt_tokens": 10, "completion_tokens": 2, "cost": 30,
            "currency": "USD", "measure": "measured", "admitted_at": at,
            "recorded_at": datetime.now(UTC),
        }  # fmt: skip
        insert(owner_sql, "tenants_ledgerentry", {**row, **more})

    return add


@pytest.fixture
def charged(tenant_a: Organisation, tenant_b: Organisation, charge: Charge) -> Organisation:
    """A tenant with usage of two people, a key and two models; another tenant has some, too."""
    key = factories.api_key(tenant_a, name="=till").api_key
    owner, developer = tenant_a.owner.user.id, tenant_a.developer.user.id
    for hours in (1, 2, 30):
        charge(tenant_a, DAY + timedelta(hours=hours), user_id=owner, api_key_id=key.id)
    charge(tenant_a, DAY, user_id=developer, sku="n@2", prompt_tokens=1)
    charge(tenant_a, DAY, currency="EUR")
    charge(tenant_b, DAY, sku="theirs@1", user_id=tenant_b.owner.user.id)
    roll_up_all()
    return tenant_a


@pytest.fixture
def reader(charged: Organisation) -> Caller:
    return session_caller(charged.viewer.user)


def _items(caller: Caller, query: str) -> list[dict[str, Any]]:
    response = caller.get(f"usage?{PERIOD}&{query}")
    assert response.status_code == 200, response.content
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def _streamed(response: Reply) -> str:
    return b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]


def test_read_usage_by_day_sums_each_currency_apart(reader: Caller) -> None:
    found = [
        (i["day"], i["currency"], i["requests"], i["prompt_tokens"], i["completion_tokens"],
         i["cost"])
        for i in _items(reader, "group_by=day")
    ]  # fmt: skip
    assert found == [
        ("2025-03-11", "USD", 1, 10, 2, 30),
        ("2025-03-10", "USD", 3, 21, 6, 90),
        ("2025-03-10", "EUR", 1, 10, 2, 30),
    ]


def test_read_usage_by_user_key_and_model_names_them(reader: Caller, charged: Organisation) -> None:
    found = {
        (i["user"], i["api_key"], i["sku"], i["requests"])
        for i in _items(reader, "group_by=user,key,model")
    }
    assert found == {
        (charged.owner.user.email, "=till", "m@1", 3),
        (charged.developer.user.email, None, "n@2", 1),
        (None, None, "m@1", 1),
    }


def test_read_usage_without_a_split_is_one_sum_a_currency(reader: Caller) -> None:
    items = _items(reader, "group_by=")
    assert [(i["currency"], i["requests"]) for i in items] == [("USD", 4), ("EUR", 1)]


def test_read_usage_says_up_to_when_it_is_complete(
    reader: Caller, owner_sql: psycopg.Connection
) -> None:
    body = reader.get("usage").json()
    until = datetime.fromisoformat(body["complete_until"])
    assert until <= datetime.now(UTC)
    today = datetime.now(UTC).date()
    assert (body["from"], body["to"]) == (today.replace(day=1).isoformat(), today.isoformat())


@pytest.mark.parametrize(
    ("zone", "day"),
    [("UTC", "2025-03-10"), ("Asia/Kathmandu", "2025-03-11"), ("Australia/Eucla", "2025-03-11"),
     ("America/St_Johns", "2025-03-10")],
)  # fmt: skip
def test_read_usage_by_day_in_a_zone_of_odd_minutes_puts_each_charge_in_its_local_day(
    tenant_a: Organisation, charge: Charge, zone: str, day: str
) -> None:
    # 18:15 in UTC is midnight in Kathmandu (+5:45).
    edit_tenant(context=TESTS, tenant_id=tenant_a.id, time_zone=zone)
    charge(tenant_a, DAY + timedelta(hours=18, minutes=15))
    roll_up_all()
    caller = session_caller(tenant_a.owner.user)
    assert [i["day"] for i in _items(caller, "")] == [day]
    assert [i["day"] for i in caller.get(f"usage?from={day}&to={day}").json()["items"]] == [day]
    before = date.fromisoformat(day) - timedelta(days=1)
    assert caller.get(f"usage?from={before}&to={before}").json()["items"] == []


def test_page_through_usage_shows_each_row_once(reader: Caller) -> None:
    whole = _items(reader, "group_by=day,user,key,model")
    seen: list[Any] = []
    path: str | None = f"usage?{PERIOD}&group_by=day,user,key,model&limit=1"
    while path is not None:
        body = reader.get(path.removeprefix("/api/v1/")).json()
        assert len(body["items"]) == 1
        seen += body["items"]
        path = body["next"]
    assert seen == whole
    assert len(whole) == 4


def test_export_usage_holds_what_the_pages_hold(
    reader: Caller, charged: Organisation, owner_sql: psycopg.Connection
) -> None:
    query = f"usage?{PERIOD}&group_by=day,user,key,model"
    items = reader.get(query).json()["items"]
    for response in (reader.get(query, Accept="text/csv"), reader.get(f"{query}&format=csv")):
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert response.streaming
        rows = list(csv.DictReader(io.StringIO(_streamed(response))))
        # A name that a spreadsheet would take for a formula is made a text.
        wanted = [{n: "" if v is None else str(v) for n, v in i.items()} for i in items]
        for row in wanted:
            row["api_key"] = row["api_key"].replace("=till", "'=till")
        assert rows == wanted
        event = owner_sql.execute(
            "SELECT e.actor_label, e.tenant_id, b.detail FROM audit_event e "
            "JOIN audit_body b ON b.event_id = e.id "
            "WHERE e.request_id = %s AND e.action = 'usage.export'",
            [response["X-Request-Id"]],
        ).fetchall()
        detail = {"from": "2025-03-01", "to": "2025-03-31", "group_by": "day,user,key,model"}
        assert event == [(charged.viewer.user.email, charged.id, {**detail, "rows": len(items)})]


def test_export_on_the_page_is_that_of_the_api(reader: Caller) -> None:
    days = "first=2025-03-01&last=2025-03-31"
    page = reader.client.get(f"/admin/tenants/usagebucket/?{days}&split=day,model")
    assert page.status_code == 200
    assert b"n@2" in page.content
    assert b"Every charge recorded before" in page.content
    export = reader.client.get(f"/admin/tenants/usagebucket/export/?{days}&split=day,model")
    api = reader.get(f"usage?{PERIOD}&group_by=day,model&format=csv")
    assert _streamed(export) == _streamed(api)


def test_read_usage_reads_no_ledger(reader: Caller) -> None:
    with CaptureQueriesContext(connection) as captured:
        _streamed(reader.get(f"usage?{PERIOD}&format=csv"))
        reader.get(f"usage?{PERIOD}")
        reader.client.get("/admin/tenants/usagebucket/")
    statements = [query["sql"] for query in captured.captured_queries]
    assert any("tenants_usagebucket" in statement for statement in statements)
    assert [statement for statement in statements if "tenants_ledgerentry" in statement] == []


def test_read_usage_as_a_member_or_key_shows_the_own_tenant_alone(
    charged: Organisation, tenant_b: Organisation
) -> None:
    callers = [
        session_caller(charged.owner.user),
        session_caller(charged.owner.user, tenant_b.id),
        key_caller(factories.api_key(charged, scopes=["tenant:read"]).token),
    ]
    for caller in callers:
        for query in ("", "&format=csv", f"&tenant_id={tenant_b.id}"):
            response = caller.get(f"usage?{PERIOD}&group_by=day,user,model{query}")
            text = _streamed(response) if response.streaming else response.content.decode()
            assert "m@1" in text
            assert "theirs@1" not in text
            assert str(tenant_b.owner.user.id) not in text
            assert tenant_b.owner.user.email not in text


def test_read_usage_as_system_administrator_crosses_tenants_on_record(
    charged: Organisation, tenant_b: Organisation, owner_sql: psycopg.Connection
) -> None:
    administrator = session_caller(factories.administrator(PlatformRole.SYSTEM).user)
    response = administrator.get(f"usage?{PERIOD}&group_by=model&limit=200")
    found = {(i["tenant"], i["sku"]) for i in response.json()["items"]}
    assert {(charged.tenant.name, "m@1"), (tenant_b.tenant.name, "theirs@1")} <= found
    assert response.json()["time_zone"] == "UTC"
    recorded = owner_sql.execute(
        "SELECT reason FROM audit_event WHERE request_id = %s AND action = 'platform.scope'",
        [response["X-Request-Id"]],
    ).fetchall()
    assert ("usage is read",) in recorded


def test_read_usage_as_system_administrator_inside_a_tenant_shows_it_alone(
    charged: Organisation, tenant_b: Organisation
) -> None:
    user = factories.administrator(PlatformRole.SYSTEM).user
    items = _items(session_caller(user, tenant_b.id), "group_by=model")
    assert [(i["sku"], i["tenant"]) for i in items] == [("theirs@1", None)]


@pytest.mark.parametrize("role", [PlatformRole.SECURITY, PlatformRole.AUDIT])
def test_read_usage_as_another_administrator_is_refused(
    charged: Organisation, role: PlatformRole
) -> None:
    caller = session_caller(factories.administrator(role).user)
    assert caller.get(f"usage?{PERIOD}").status_code == 403
    assert caller.client.get("/admin/tenants/usagebucket/").status_code == 403
    assert caller.client.get("/admin/tenants/usagebucket/export/").status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "from=2025-03-02&to=2025-03-01",
        "from=0001-01-01&to=0001-01-02",
        "from=9999-12-31&to=9999-12-31",
        "from=2001-01-01&to=2025-01-01",
        "group_by=tenant",
        "group_by=day,day;drop",
        "limit=0",
    ],
)
def test_read_usage_with_a_wrong_query_is_refused_in_words(reader: Caller, query: str) -> None:
    for more in ("", "&format=csv"):
        response = reader.get(f"usage?{query}{more}")
        assert response.status_code == 400
        assert response.json()["detail"]


@pytest.mark.parametrize("before", ["x", "WyJ4Il0=", "WzFd", "%F0%9F%98%80"])
def test_read_usage_from_a_malformed_position_is_refused(reader: Caller, before: str) -> None:
    response = reader.get(f"usage?{PERIOD}&before={before}")
    assert (response.status_code, response.json()["param"]) == (400, "before")
    page = reader.client.get(f"/admin/tenants/usagebucket/?before={before}")
    assert page.status_code == 400


@pytest.mark.parametrize("query", ["first=x", "first=2025-03-02&last=2025-03-01", "split=tenant"])
def test_open_usage_page_with_a_wrong_query_says_what_is_wrong(reader: Caller, query: str) -> None:
    response = reader.client.get(f"/admin/tenants/usagebucket/?{query}")
    assert response.status_code == 400
    assert b'role="alert"' in response.content
    assert reader.client.get(f"/admin/tenants/usagebucket/export/?{query}").status_code == 400


def test_send_download_over_asgi_leaves_in_pieces() -> None:
    content = b"x" * 150_000

    async def collect() -> list[bytes]:
        sent = Download(io.BytesIO(content), name="x.csv", content_type="text/csv")
        return [piece async for piece in sent]

    pieces = asyncio.run(collect())
    assert b"".join(pieces) == content
    assert len(pieces) == 3


@given(first=st.dates(), last=st.dates())
def test_ask_for_any_days_is_taken_or_refused(first: date, last: date) -> None:
    try:
        query = UsageQuery(first, last, tuple(Group))
    except Invalid:
        return
    assert 0 <= (query.last - query.first).days < 1100
