"""An app in a real browser: tried, with its sources, rated, and refused in words."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from knowledge.models import AppMessage
from knowledge.services import add_text, create_knowledge_base
from portal.core.tenancy import tenant_scope
from tests.e2e.conftest import House
from tests.knowledge.apps.support import make_app
from tests.knowledge.support import index
from tests.live import LivePortal

LogIn = Callable[..., Page]


def test_app_is_tried_with_its_sources_and_rated(
    log_in: LogIn, house: House, live_portal: LivePortal
) -> None:
    base = create_knowledge_base(context=house.a.context, name="House rules", embedding_model="")
    add_text(
        context=house.a.context,
        knowledge_base_id=base.pk,
        name="lunch.txt",
        text="Lunch is served from noon to two.",
    )
    index(house.a)
    app = make_app(
        house.a,
        live_portal.fake.model,
        base=base,
        sampling={"max_tokens": 12},
        disclaimer="Made by a machine.",
    )
    page = log_in("developer")
    page.get_by_role("link", name="Apps", exact=True).click()
    page.get_by_role("link", name=app.name).click()
    page.get_by_role("link", name="Try it").click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.get_by_label("Message").fill("When is lunch?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".fh-message-assistant")).not_to_be_empty()
    expect(page.locator(".fh-message-facts")).to_contain_text("12 completion tokens")
    expect(page.locator(".fh-message-facts")).to_contain_text("Made by a machine.")
    sources = page.locator(".fh-sources")
    expect(sources.get_by_text("Sources: 1")).to_be_visible()
    sources.get_by_text("Sources: 1").click()
    expect(sources.get_by_text("Lunch is served from noon to two.")).to_be_visible()
    good = page.get_by_role("button", name="Good answer")
    good.click()
    expect(good).to_have_attribute("aria-pressed", "true")
    with tenant_scope(house.a.context):
        assert AppMessage.objects.get().rating == 1
    page.get_by_role("button", name="Bad answer").click()
    expect(good).to_have_attribute("aria-pressed", "false")
    page.get_by_label("Message").fill("And dinner?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".fh-message-assistant")).to_have_count(2)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_refused_call_is_told_in_words(
    log_in: LogIn, house: House, live_portal: LivePortal
) -> None:
    app = make_app(house.a, live_portal.fake.model, sampling={"max_tokens": 4000})
    page = log_in("developer")
    page.goto(f"/admin/knowledge/app/{app.pk}/try/")
    page.get_by_label("Message").fill("x" * 400)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("context")
    expect(page.get_by_label("Message")).to_have_value("x" * 400)
