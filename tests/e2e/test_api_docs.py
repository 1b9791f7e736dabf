"""The management API's own page: whole, usable, and loaded from the portal alone."""

from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, expect

from tests.e2e.conftest import CHROMIUM, House
from tests.live import Programs

LogIn = Callable[..., Page]
# Swagger UI takes liberties that it does not take on a name for this machine.
NAME = "portal.example.test"


def test_trying_a_call_on_the_api_page_answers_with_the_sessions_rows(
    log_in: LogIn, house: House
) -> None:
    page = log_in("owner")
    page.goto("/api/v1/docs")
    page.get_by_placeholder("Filter by tag").fill("users")
    call = page.locator(".opblock", has=page.locator("[data-path='/api/v1/users']")).first
    call.locator(".opblock-summary").click()
    call.get_by_role("button", name="Try it out").click()
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text(house.people["viewer"].email)
    expect(call.locator(".live-responses-table .response-col_status").last).to_contain_text("200")


def test_reading_the_api_page_under_the_portals_name_asks_nobody_else(
    browser: Browser, house: House, programs: Programs
) -> None:
    web = programs.web("named", ALLOWED_HOSTS=NAME, FREEHOLD_PLANES="control")
    port = urlsplit(web.url).port
    web.wait_alive()
    asked: list[str] = []
    said: list[str] = []
    named = browser.browser_type.launch(
        executable_path=CHROMIUM,
        args=["--no-sandbox", f"--host-resolver-rules=MAP {NAME} 127.0.0.1"],
    )
    try:
        page = named.new_page(base_url=f"http://{NAME}:{port}")
        page.on("request", lambda request: _note(request, asked))
        page.on("console", lambda message: said.append(message.text))
        person = house.people["owner"]
        page.goto("/admin/login/")
        page.locator("[name=username]").fill(person.email)
        page.locator("[name=password]").fill(person.password)
        page.locator("#login-form button[type=submit]").click()
        page.locator("h1.fh-title").wait_for()
        page.goto("/api/v1/docs")
        expect(page.locator(".opblock").nth(5)).to_be_visible()
        page.wait_for_load_state("networkidle")
    finally:
        named.close()
    assert {urlsplit(url).hostname for url in asked} == {NAME}
    assert any(url.endswith("/swagger-ui-bundle.js") for url in asked)
    assert [text for text in said if "Content Security Policy" in text] == []


def _note(request: Request, asked: list[str]) -> None:
    if not request.url.startswith("data:"):
        asked.append(request.url)
