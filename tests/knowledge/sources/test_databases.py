"""Databases that are read: real servers of PostgreSQL and MariaDB."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from knowledge.models import DocumentSource, KnowledgeBase, RunState
from knowledge.services import add_text
from knowledge.sources import database as reading
from knowledge.sources import mysql, postgresql, runs, sql
from knowledge.sources.reading import SourceFault
from knowledge.sources.services import create_source, edit_source, start_run, try_source
from portal.core.errors import Invalid
from portal.core.outgoing import Targets, authorities
from tests.factories import Organisation
from tests.knowledge.sources.databases import (
    PASSWORD,
    Database,
    MariaDB,
    PostgreSQL,
    running_mariadb,
    running_postgresql,
)
from tests.knowledge.sources.support import (
    documents,
    done,
    last_run,
    refused,
    run,
    source_now,
    texts,
)
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def postgres(servers: SessionServers, database: None) -> Iterator[PostgreSQL]:
    with running_postgresql(servers) as made:
        yield made


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with running_mariadb() as made:
        yield made


@pytest.fixture(params=["postgres", "mariadb"])
def shop(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database with a table of tickets."""
    made: Database = request.getfixturevalue(request.param)
    made.execute(
        "CREATE TABLE tickets (id integer PRIMARY KEY, title varchar(300), body text,"
        " price decimal(10, 2), open boolean, made date, changed timestamp NULL)"
    )
    yield made
    made.execute("DROP TABLE tickets")


def settings(shop: Database, **changed: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": shop.port,
        "database": shop.database,
        "user": "reader",
        "tls": False,
        "query": "SELECT * FROM tickets",
        "key_column": "id",
        "name_column": "title",
        "text_columns": ["body"],
        **changed,
    }


def read(
    tenant: Organisation,
    base: KnowledgeBase,
    shop: Database,
    *,
    password: str = PASSWORD,
    **more: Any,
) -> DocumentSource:
    return create_source(
        context=tenant.context,
        knowledge_base_id=base.pk,
        name="tickets",
        kind=shop.kind,
        settings=settings(shop, **more),
        password=password,
    )


def ticket(number: int, body: str = "It leaks.", at: str = "2026-01-01 10:00:00") -> str:
    return (
        f"INSERT INTO tickets VALUES ({number}, 'Ticket {number}', '{body}', 12.50, true,"
        f" '2026-01-02', '{at}')"
    )


def test_rows_become_documents_and_follow_what_happens_to_them(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(ticket(1), ticket(2, "水泵振动。"))
    source = read(
        tenant_a,
        base,
        shop,
        text_columns=["title", "body"],
        metadata_columns=["price", "made"],
    )
    assert done(run(tenant_a, source)) == {"added": 2}
    assert texts(tenant_a, base)["Ticket 2"] == "title: Ticket 2\nbody: 水泵振动。"
    facts = documents(tenant_a, base)["Ticket 1"].metadata
    assert facts == {"price": 12.5, "made": "2026-01-02"}
    assert done(run(tenant_a, source)) == {"unchanged": 2}
    shop.execute(
        "UPDATE tickets SET body = 'It leaks no more.' WHERE id = 1",
        "DELETE FROM tickets WHERE id = 2",
        ticket(3),
    )
    assert done(run(tenant_a, source)) == {"added": 1, "changed": 1, "removed": 1}
    # A fact alone, and then the name.
    shop.execute("UPDATE tickets SET price = 13 WHERE id = 1")
    assert done(run(tenant_a, source)) == {"changed": 1, "unchanged": 1}
    assert documents(tenant_a, base)["Ticket 1"].metadata["price"] == 13
    shop.execute("UPDATE tickets SET title = 'Renamed' WHERE id = 1")
    run(tenant_a, source)
    assert sorted(documents(tenant_a, base)) == ["Renamed", "Ticket 3"]


def test_later_runs_go_on_from_the_newest_value_and_lose_and_double_nothing(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(ticket(1), ticket(2, at="2026-01-01 11:00:00"))
    source = read(tenant_a, base, shop, cursor_column="changed")
    assert done(run(tenant_a, source)) == {"added": 2}
    # The same second as the newest that was read, and one before.
    shop.execute(ticket(3, at="2026-01-01 11:00:00"), ticket(4, at="2026-01-01 10:30:00"))
    ran = run(tenant_a, source)
    assert (done(ran), ran.full) == ({"added": 1, "unchanged": 1}, False)
    shop.execute("DELETE FROM tickets WHERE id = 1")
    assert done(run(tenant_a, source)) == {"unchanged": 2}
    # What an incremental run can't know a full one finds.
    start_run(context=tenant_a.context, source_id=source.pk, full=True)
    ran = run(tenant_a, source)
    assert (done(ran), ran.full) == ({"added": 1, "removed": 1, "unchanged": 2}, True)
    assert run(tenant_a, source).full is False


def test_key_column_that_grows_is_gone_on_from(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(*(ticket(number) for number in range(1, 8)))
    source = read(tenant_a, base, shop, cursor_column="id")
    assert done(run(tenant_a, source)) == {"added": 7}
    shop.execute(ticket(8))
    assert done(run(tenant_a, source)) == {"added": 1, "unchanged": 1}


@pytest.mark.parametrize("cursor", ["", "changed"])
def test_pages_that_end_among_equal_values_lose_and_double_nothing(
    tenant_a: Organisation,
    base: KnowledgeBase,
    shop: Database,
    monkeypatch: pytest.MonkeyPatch,
    cursor: str,
) -> None:
    for module in (reading, sql):
        monkeypatch.setattr(module, "PAGE", 3)
    shop.execute(*(ticket(number) for number in range(1, 12)))
    source = read(tenant_a, base, shop, cursor_column=cursor)
    assert done(run(tenant_a, source)) == {"added": 11}
    shop.execute("UPDATE tickets SET body = 'All new.'")
    assert done(run(tenant_a, source)) == {"changed": 11}


def test_key_column_that_is_not_unique_is_told(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reading, sql):
        monkeypatch.setattr(module, "PAGE", 3)
    shop.execute(*(ticket(number) for number in range(1, 6)))
    with pytest.raises(SourceFault, match="unique"):
        read(tenant_a, base, shop, key_column="body", name_column="")


def test_bad_rows_are_refused_with_their_reasons_and_the_others_go_on(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "MOST_BYTES", 1000)
    add_text(context=tenant_a.context, knowledge_base_id=base.pk, name="Ticket 4", text="By hand.")
    shop.execute(
        ticket(1),
        ticket(2, " "),
        ticket(3, "x" * 1001),
        ticket(4),
        ticket(5),
        "UPDATE tickets SET title = 'Ticket 1' WHERE id = 5",
    )
    source = read(tenant_a, base, shop)
    assert done(run(tenant_a, source)) == {"added": 1, "refused": 4}
    why = refused(tenant_a, source)
    assert "no text" in why["2"]
    assert "larger than 15 MB" in why["3"]
    assert "does not come from this source" in why["4"]
    assert "Another row" in why["5"]


def test_row_without_a_key_is_refused(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(ticket(1), ticket(2), "UPDATE tickets SET title = NULL WHERE id = 2")
    source = read(tenant_a, base, shop, key_column="title", name_column="")
    assert done(run(tenant_a, source)) == {"added": 1, "refused": 1}
    assert "key is empty" in refused(tenant_a, source)["(no key)"]


def test_query_may_hold_percent_signs_comments_and_odd_names(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(ticket(1))
    quote = "`" if shop.kind == "mysql" else '"'
    query = (
        f"SELECT id, body AS {quote}100 %s{quote} FROM tickets WHERE body LIKE '%leak%' "
        "-- all of them"
    )
    source = read(tenant_a, base, shop, query=query, text_columns=["100 %s"], name_column="")
    assert done(run(tenant_a, source)) == {"added": 1}
    assert texts(tenant_a, base) == {"1": "It leaks."}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"password": "wrong"}, "refuses the user or the password"),
        ({"user": "nobody"}, "refuses the user or the password"),
        ({"database": "nowhere"}, "no such database"),
        ({"text_columns": ["bdoy"]}, "no column 'bdoy'; it gives: id, title"),
        ({"query": "SELECT * FROM nowhere"}, "refuses the query: .*nowhere"),
        ({"query": "SELECT * FORM tickets"}, "refuses the query"),
        ({"tls": True}, "offers no TLS"),
        ({"cursor_column": "title"}, "numbers or times"),
    ],
)
def test_database_that_refuses_is_told_in_a_sentence_and_nothing_is_saved(
    tenant_a: Organisation,
    base: KnowledgeBase,
    shop: Database,
    changed: dict[str, Any],
    sentence: str,
) -> None:
    shop.execute(ticket(1))
    with pytest.raises(SourceFault, match=sentence):
        read(tenant_a, base, shop, **changed)
    read(tenant_a, base, shop)


def test_database_that_does_not_answer_is_told(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    with pytest.raises(SourceFault, match="can't be reached"):
        read(tenant_a, base, shop, port=1024)
    with pytest.raises(SourceFault, match="host name"):
        read(tenant_a, base, shop, host="nowhere.invalid")


def test_address_that_the_operator_did_not_list_is_not_called(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_targets", lambda: Targets.parse("public, 10.0.0.0/8"))
    with pytest.raises(SourceFault, match="SOURCE_NETWORKS"):
        read(tenant_a, base, shop)


def test_query_that_takes_too_long_is_ended(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.execute(ticket(1))
    monkeypatch.setattr(mysql, "_LONGEST", 1)
    monkeypatch.setattr(postgresql, "_SETTINGS", ("SET statement_timeout = '1s'",))
    sleep = "sleep(60)" if shop.kind == "mysql" else "pg_sleep(60)::text"
    with pytest.raises(SourceFault, match="takes longer"):
        read(tenant_a, base, shop, query=f"SELECT id, title, {sleep} AS body FROM tickets")


def test_encrypted_database_is_read_if_its_certificate_is_trusted_and_its_names(
    tenant_a: Organisation,
    base: KnowledgeBase,
    mariadb: MariaDB,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = "SELECT 1 AS id, 'Pump 3' AS title, 'It leaks.' AS body"
    with pytest.raises(SourceFault, match="not trusted"):
        read(tenant_a, base, mariadb, query=query, tls=True, host="localhost")
    monkeypatch.setattr(mysql, "_tls", lambda: authorities(mariadb.authority))
    with pytest.raises(SourceFault, match="not its name's"):
        read(tenant_a, base, mariadb, query=query, tls=True)
    source = read(tenant_a, base, mariadb, query=query, tls=True, host="localhost")
    assert done(run(tenant_a, source)) == {"added": 1}


def test_query_can_write_nothing(
    tenant_a: Organisation, base: KnowledgeBase, postgres: PostgreSQL
) -> None:
    postgres.execute("CREATE SEQUENCE IF NOT EXISTS numbers", "GRANT ALL ON numbers TO reader")
    query = "SELECT nextval('numbers') AS id, 'x' AS title, 'y' AS body"
    with pytest.raises(SourceFault, match="read-only"):
        read(tenant_a, base, postgres, query=query)


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"query": "DELETE FROM tickets"}, "query"),
        ({"host": "/var/run/postgresql"}, "host"),
        ({"host": "a,b"}, "host"),
        ({"port": 22}, "port"),
        ({"key_column": ""}, "key_column"),
        ({"text_columns": []}, "text_columns"),
        ({"full_hours": -1}, "full_hours"),
        ({"pasword": "x"}, "settings"),
    ],
)
def test_settings_that_are_none_are_refused_by_name(
    tenant_a: Organisation, base: KnowledgeBase, postgres: PostgreSQL, changed: Any, param: str
) -> None:
    with pytest.raises(Invalid) as told:
        read(tenant_a, base, postgres, **changed)
    assert told.value.param == param


def test_a_test_shows_the_first_rows(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(ticket(1), ticket(2, ""))
    source = read(tenant_a, base, shop)
    first, second = try_source(context=tenant_a.context, source_id=source.pk)
    assert "no text" in second.problem
    assert (first.key, first.name, first.text, first.problem) == ("1", "Ticket 1", "It leaks.", "")
    assert documents(tenant_a, base) == {}


def test_password_is_kept_sealed_and_sent_nowhere_else(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(ticket(1))
    source = read(tenant_a, base, shop)
    kept = source_now(tenant_a, source)
    assert kept.sealed is not None
    assert PASSWORD.encode() not in bytes(kept.sealed)
    assert PASSWORD not in str(kept.settings)
    elsewhere = settings(shop, host="localhost")
    with pytest.raises(Invalid, match="password") as told:
        edit_source(context=tenant_a.context, source_id=source.pk, settings=elsewhere)
    assert told.value.param == "password"
    edit_source(
        context=tenant_a.context, source_id=source.pk, settings=elsewhere, password=PASSWORD
    )
    # The same place needs none.
    narrowed = elsewhere | {"query": "SELECT * FROM tickets WHERE id < 5"}
    edit_source(context=tenant_a.context, source_id=source.pk, settings=narrowed)
    assert done(run(tenant_a, source)) == {"added": 1}


def test_edit_that_changes_no_setting_has_nothing_read_anew(
    tenant_a: Organisation, base: KnowledgeBase, shop: Database
) -> None:
    shop.execute(ticket(1))
    source = read(tenant_a, base, shop)
    run(tenant_a, source)
    edit_source(
        context=tenant_a.context, source_id=source.pk, settings=settings(shop), schedule="15"
    )
    now = source_now(tenant_a, source)
    assert now.full_wanted is False
    assert now.wake_at is not None
    assert now.wake_at > timezone.now() + timedelta(minutes=14)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("cursor", ["", "id"])
def test_run_that_is_killed_is_followed_by_one_that_doubles_nothing(
    tenant_a: Organisation,
    base: KnowledgeBase,
    shop: Database,
    monkeypatch: pytest.MonkeyPatch,
    cursor: str,
) -> None:
    monkeypatch.setattr(reading, "BATCH", 3)
    shop.execute(*(ticket(number) for number in range(1, 9)))
    source = read(tenant_a, base, shop, cursor_column=cursor)
    at_the(5, monkeypatch, die)
    with pytest.raises(Killed):
        run(tenant_a, source)
    assert done(run(tenant_a, source)) == {"added": 8}
    assert {d.latest for d in documents(tenant_a, base).values()} == {1}
    assert (last_run(tenant_a, source).position or {})["at"] == ["int", "8"]


def die() -> None:
    raise Killed


def at_the(count: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Something happens at the so-manyth document that is kept, once."""
    real, calls = runs._keep, 0

    def keep(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            act()
        real(*arguments)

    monkeypatch.setattr(runs, "_keep", keep)


def test_connection_that_breaks_off_is_told_and_the_next_run_goes_on(
    tenant_a: Organisation,
    base: KnowledgeBase,
    postgres: PostgreSQL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "BATCH", 20)
    query = "SELECT id, 'Row ' || id AS title, 'It leaks.' AS body FROM generate_series(1, 60) id"
    source = read(tenant_a, base, postgres, query=query)
    at_the(3, monkeypatch, postgres.relay.cut)
    broken = run(tenant_a, source)
    assert (broken.state, "broke off" in broken.error) == (RunState.FAILED, True)
    assert len(documents(tenant_a, base)) == 20
    assert done(run(tenant_a, source)) == {"added": 40, "unchanged": 20}
