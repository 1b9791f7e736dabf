"""Reading a database in the browser."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.knowledge.sources.databases import PASSWORD, PostgreSQL, running_postgresql
from tests.servers import SessionServers

LogIn = Callable[..., Page]


@pytest.fixture
def postgres(servers: SessionServers, database: None) -> Iterator[PostgreSQL]:
    with running_postgresql(servers) as made:
        made.execute(
            "CREATE TABLE tickets (id integer PRIMARY KEY, title text, body text)",
            "INSERT INTO tickets VALUES (1, 'Pump 3', 'It leaks.'), (2, 'Pump 4', '')",
        )
        yield made


def test_reading_a_database_says_what_is_wrong_until_it_works(
    log_in: LogIn, postgres: PostgreSQL
) -> None:
    page = log_in("owner")
    page.goto("/admin/knowledge/knowledgebase/add/")
    page.locator("[name=name]").fill("Tickets")
    page.get_by_role("button", name="Create knowledge base").click()
    page.get_by_role("link", name="Read a database").click()
    sent = {
        "name": "Tickets",
        "host": "127.0.0.1",
        "port": str(postgres.port),
        "database": postgres.database,
        "user": "reader",
        "password": "wrong",
        "query": "SELECT * FROM tickets",
        "key_column": "id",
        "name_column": "title",
        "text_columns": "body",
    }
    for name, value in sent.items():
        page.locator(f"[name={name}]").fill(value)
    page.locator("[name=tls]").uncheck()
    save = page.get_by_role("button", name="Test and save")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("refuses the user or the password")
    # The password is never sent back to the browser; all else is.
    expect(page.locator("[name=password]")).to_have_value("")
    expect(page.locator("[name=query]")).to_have_value("SELECT * FROM tickets")
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("[name=text_columns]").fill("bdoy")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("it gives: id, title, body")
    page.locator("[name=text_columns]").fill("body")
    page.locator("[name=password]").fill(PASSWORD)
    save.click()
    expect(page.locator(".fh-facts")).to_contain_text("SELECT * FROM tickets")
    page.get_by_role("link", name="Test", exact=True).click()
    page.get_by_role("button", name="Test", exact=True).click()
    row = page.locator("tbody tr", has_text="Pump 3")
    expect(row).to_contain_text("It leaks.")
    page.get_by_role("link", name="Back").click()
    page.get_by_role("link", name="Edit").click()
    expect(page.locator("[name=text_columns]")).to_have_value("body")
    page.locator("[name=schedule]").fill("0 3 * * *")
    save.click()
    expect(page.locator(".fh-facts")).to_contain_text("0 3 * * *")
