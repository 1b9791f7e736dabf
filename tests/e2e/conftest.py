"""A real browser against the whole running portal."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from django.db import connections
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from portal.core.actors import PlatformRole, TenantRole
from tenants.services import add_member, create_user
from tests import factories
from tests.live import LivePortal
from tests.servers import SessionServers, manage

CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=20_000)


@dataclass(frozen=True, slots=True)
class Person:
    """An account that logs in."""

    email: str
    password: str


@dataclass(frozen=True, slots=True)
class House:
    """Who is there: two tenants, the three administrators, and a member of both tenants."""

    a: factories.Organisation
    b: factories.Organisation
    people: dict[str, Person]


@pytest.fixture(scope="module")
def house(live_portal: LivePortal, servers: SessionServers) -> House:
    manage(servers.data_dir, "collectstatic", "--no-input")
    a, b = factories.organisation("tenant-a"), factories.organisation("tenant-b")
    people = {
        role: Person(member.user.email, member.password)
        for role, member in (
            ("owner", a.owner),
            ("developer", a.developer),
            ("viewer", a.viewer),
            ("auditor", a.auditor),
        )
    }
    for role in PlatformRole:
        administrator = factories.administrator(role)
        people[role.value] = Person(administrator.user.email, administrator.password)
    made = create_user(context=factories.TESTS, email=f"{factories.unique('both')}@x.test")
    assert made.password is not None
    for organisation in (a, b):
        add_member(
            context=organisation.owner.context,
            email=made.user.email,
            role=TenantRole.DEVELOPER,
        )
    people["both"] = Person(made.user.email, made.password)
    return House(a, b, people)


@pytest.fixture(scope="module")
def browser(house: House) -> Iterator[Browser]:
    # Playwright keeps an event loop on this thread, which Django would take for async code.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield chromium
            chromium.close()
            # Within Playwright's loop Django has connections of their own, which would be used
            # again by the next module, whatever became of the server meanwhile.
            connections.close_all()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, live_portal: LivePortal) -> Iterator[OpenPage]:
    """Opens pages in contexts of their own; none may speak to another origin or log an error."""
    asked: list[str] = []
    faults: list[str] = []
    contexts = []

    def opened(language: str = "en") -> Page:
        context = browser.new_context(base_url=live_portal.base_url, locale="en-US")
        contexts.append(context)
        context.add_cookies(
            [{"name": "django_language", "value": language, "url": live_portal.base_url}]
        )
        context.on("request", lambda request: _note(request, asked))
        page = context.new_page()
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        return page

    yield opened
    for context in contexts:
        context.close()
    home = urlsplit(live_portal.base_url).netloc
    assert {urlsplit(url).netloc for url in asked} <= {home}
    assert faults == []


def _note(request: Request, asked: list[str]) -> None:
    if not request.url.startswith("data:"):
        asked.append(request.url)


@pytest.fixture
def log_in(open_page: OpenPage, house: House) -> Callable[..., Page]:
    """Logs a person in and returns the page they land on."""

    def logged_in(role: str, language: str = "en") -> Page:
        page = open_page(language)
        person = house.people[role]
        page.goto("/admin/login/")
        page.locator("[name=username]").fill(person.email)
        page.locator("[name=password]").fill(person.password)
        page.locator("#login-form button[type=submit]").click()
        page.locator("h1.fh-title").wait_for()
        return page

    return logged_in
