"""Triggers in a real browser: made by the form, which shows what belongs to their kind alone."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.conftest import House
from tests.knowledge.apps.support import make_app
from tests.live import LivePortal

LogIn = Callable[..., Page]


def test_trigger_is_made_by_hand(log_in: LogIn, house: House, live_portal: LivePortal) -> None:
    inputs = [{"name": "payment", "required": False}]
    app = make_app(house.a, live_portal.fake.model, mode="run", prompt="{{payment}}", inputs=inputs)
    page = log_in("developer")
    page.get_by_role("link", name="Triggers").click()
    expect(page.get_by_text("No trigger yet")).to_be_visible()
    page.get_by_role("link", name="New trigger").first.click()
    page.locator("[name=name]").fill("Large payments")
    page.locator("[name=app_id]").select_option(app.name)
    rules = page.locator("[name=rules]")
    page.locator("[name=kind]").select_option("A schedule")
    expect(rules).to_be_hidden()
    expect(page.locator("[name=schedule]")).to_be_visible()
    page.locator("[name=kind]").select_option("Events")
    expect(page.locator("[name=schedule]")).to_be_hidden()
    rules.fill('[{"name": "large"}]')
    page.locator("[name=inputs]").fill('{"payment": "$event"}')
    page.get_by_role("button", name="Create trigger").click()
    expect(page.get_by_text("'stream' is needed").or_(page.get_by_text("$[0]"))).to_be_visible()
    page.locator("[name=stream]").fill("payments")
    rules.fill(
        '[{"name": "large", "when":'
        ' {"type": "compare", "field": "amount", "op": ">=", "value": 9000}}]'
    )
    page.get_by_role("button", name="Create trigger").click()
    expect(page.get_by_text("amount ≥ 9000")).to_be_visible()
    expect(page.get_by_text("It has not started the app yet.")).to_be_visible()
