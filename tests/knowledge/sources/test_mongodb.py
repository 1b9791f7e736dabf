"""MongoDB by its wire contract: a server of ours that speaks the protocol, and no MongoDB."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId

from knowledge.models import DocumentSource, KnowledgeBase, RunState
from knowledge.sources import database as reading
from knowledge.sources import mongodb
from knowledge.sources.reading import SourceFault
from knowledge.sources.services import create_source, start_run
from portal.core.errors import Invalid
from tests.factories import Organisation
from tests.knowledge.sources.mongo import Mongo, Refused
from tests.knowledge.sources.support import documents, done, run, texts

PASSWORD = "reader's secret"


@pytest.fixture
def mongo() -> Iterator[Mongo]:
    server = Mongo("reader", PASSWORD)
    yield server
    server.close()


def ticket(number: int, **more: Any) -> dict[str, Any]:
    return {
        "_id": ObjectId(f"{number:024x}"),
        "title": f"Ticket {number}",
        "body": "It leaks.",
        "open": True,
        "price": Decimal128("12.50"),
        "changed": datetime(2026, 1, 1, number % 24),  # noqa: DTZ001  (as BSON has it)
        **more,
    }


def read(
    tenant: Organisation,
    base: KnowledgeBase,
    mongo: Mongo,
    *,
    password: str = PASSWORD,
    **more: Any,
) -> DocumentSource:
    settings = {
        "host": "127.0.0.1",
        "port": mongo.port,
        "database": "shop",
        "user": "reader",
        "tls": False,
        "query": '{"find": "tickets"}',
        "key_column": "_id",
        "name_column": "title",
        "text_columns": ["body"],
        **more,
    }
    return create_source(
        context=tenant.context,
        knowledge_base_id=base.pk,
        name="tickets",
        kind="mongodb",
        settings=settings,
        password=password,
    )


def test_documents_become_documents_and_follow_what_happens_to_them(
    tenant_a: Organisation, base: KnowledgeBase, mongo: Mongo
) -> None:
    tickets = mongo.collections["tickets"] = [ticket(1), ticket(2, body="水泵振动。", open=False)]
    source = read(tenant_a, base, mongo, metadata_columns=["price", "open"])
    assert done(run(tenant_a, source)) == {"added": 2}
    assert texts(tenant_a, base) == {"Ticket 1": "It leaks.", "Ticket 2": "水泵振动。"}
    assert documents(tenant_a, base)["Ticket 1"].metadata == {"price": 12.5, "open": True}
    tickets[0]["body"] = "It leaks no more."
    tickets[1] = ticket(3)
    assert done(run(tenant_a, source)) == {"added": 1, "changed": 1, "removed": 1}


def test_later_runs_go_on_from_the_newest_value(
    tenant_a: Organisation, base: KnowledgeBase, mongo: Mongo
) -> None:
    tickets = mongo.collections["tickets"] = [ticket(1), ticket(2)]
    source = read(tenant_a, base, mongo, cursor_column="changed")
    assert done(run(tenant_a, source)) == {"added": 2}
    tickets += [ticket(3, changed=tickets[1]["changed"]), ticket(4)]
    del tickets[0]
    assert done(run(tenant_a, source)) == {"added": 2, "unchanged": 1}
    start_run(context=tenant_a.context, source_id=source.pk, full=True)
    assert done(run(tenant_a, source)) == {"removed": 1, "unchanged": 3}


@pytest.mark.parametrize("cursor", ["", "changed", "count"])
def test_batches_and_pages_lose_and_double_nothing(
    tenant_a: Organisation,
    base: KnowledgeBase,
    mongo: Mongo,
    monkeypatch: pytest.MonkeyPatch,
    cursor: str,
) -> None:
    for module in (reading, mongodb):
        monkeypatch.setattr(module, "PAGE", 5)
    monkeypatch.setattr(mongodb, "FETCH", 2)
    same = datetime(2026, 1, 1)  # noqa: DTZ001  (as BSON has it)
    mongo.collections["tickets"] = [
        ticket(n, changed=same, count=Int64(n // 6)) for n in range(1, 13)
    ]
    source = read(tenant_a, base, mongo, cursor_column=cursor)
    assert done(run(tenant_a, source)) == {"added": 12}
    assert any("getMore" in command for command in mongo.asked)


def test_filter_and_fields_are_asked_for(
    tenant_a: Organisation, base: KnowledgeBase, mongo: Mongo
) -> None:
    mongo.collections["tickets"] = [ticket(1), ticket(2, open=False), ticket(3, body=None)]
    source = read(tenant_a, base, mongo, query='{"find": "tickets", "filter": {"open": true}}')
    assert done(run(tenant_a, source)) == {"added": 1, "refused": 1}
    asked = mongo.asked[-1]
    assert asked["projection"] == {"_id": 1, "title": 1, "body": 1}
    assert asked["maxTimeMS"] == 60_000


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"password": "wrong"}, "refuses the user or the password"),
        ({"user": "nobody"}, "refuses the user or the password"),
        ({"query": '{"find": "tickets", "filter": {"$near": 1}}'}, "query: unknown top level"),
        ({"cursor_column": "title"}, "numbers or times"),
        ({"port": 1024}, "can't be reached"),
    ],
)
def test_database_that_refuses_is_told_in_a_sentence(
    tenant_a: Organisation,
    base: KnowledgeBase,
    mongo: Mongo,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.setattr(mongodb, "CONNECT_SECONDS", 1)
    mongo.collections["tickets"] = [ticket(1)]
    with pytest.raises(SourceFault, match=sentence):
        read(tenant_a, base, mongo, **changed)


def test_query_that_takes_too_long_is_told(
    tenant_a: Organisation, base: KnowledgeBase, mongo: Mongo
) -> None:
    mongo.refuse = Refused(50, "MaxTimeMSExpired", "operation exceeded time limit")
    with pytest.raises(SourceFault, match="takes longer"):
        read(tenant_a, base, mongo)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        '{"find": ""}',
        '{"aggregate": "tickets"}',
        '{"find": "tickets", "filter": {"$or": [{"$where": "sleep(9)"}]}}',
    ],
)
def test_query_that_is_none_or_runs_code_is_refused(
    tenant_a: Organisation, base: KnowledgeBase, mongo: Mongo, query: str
) -> None:
    with pytest.raises(Invalid) as told:
        read(tenant_a, base, mongo, query=query)
    assert told.value.param == "query"


def test_connection_that_breaks_off_is_told(
    tenant_a: Organisation, base: KnowledgeBase, mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongodb, "FETCH", 2)
    monkeypatch.setattr(reading, "BATCH", 2)
    mongo.collections["tickets"] = [ticket(n) for n in range(1, 7)]
    source = read(tenant_a, base, mongo)
    plain = mongodb._value

    def cut(*given: Any) -> Any:
        mongo.cut()
        return plain(*given)

    monkeypatch.setattr(mongodb, "_value", cut)
    assert run(tenant_a, source).state == RunState.FAILED
    monkeypatch.setattr(mongodb, "_value", plain)
    assert len(documents(tenant_a, base)) == 2
    assert done(run(tenant_a, source)) == {"added": 4, "unchanged": 2}
