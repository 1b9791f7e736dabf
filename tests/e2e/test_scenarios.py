"""A scenario in a real browser: installed from its page, with its trigger and what it scored."""

from collections.abc import Callable
from datetime import UTC, datetime

from playwright.sync_api import Page, expect

from knowledge.models import App, Evaluation
from portal.core.tenancy import tenant_scope
from tests.e2e.conftest import House

LogIn = Callable[..., Page]


def test_scenario_is_installed_and_its_evaluation_read(log_in: LogIn, house: House) -> None:
    page = log_in("developer")
    page.get_by_role("link", name="Scenarios").click()
    card = page.get_by_role("region", name="Manufacturing")
    card.get_by_role("link", name="Install").click()
    expect(page.locator("[name=slug]")).to_have_value("manufacturing")
    page.get_by_role("button", name="Install").click()
    expect(page.get_by_text("The scenario is installed.")).to_be_visible()
    page.get_by_role("link", name="Scenarios").click()
    expect(card).to_contain_text("scenario evaluate manufacturing")
    card.get_by_role("link", name="Trigger").click()
    expect(page.get_by_text("device-logs")).to_be_visible()
    with tenant_scope(house.a.context):
        app = App.objects.get(slug="manufacturing")
        for right in (0.4, 0.9):
            Evaluation(
                tenant_id=house.a.id,
                app=app,
                app_version=1,
                scenario=app.slug,
                model="m@1",
                cases=2,
                scores={"valid": 1.0, "exact": right, "fields": {"fault": right}},
                failures=[],
                seconds=1.0,
                created_at=datetime.now(UTC),
            ).save(force_insert=True)
    page.get_by_role("link", name="Scenarios").click()
    expect(card.get_by_role("img", name="Share of right answers over time")).to_be_visible()
    card.get_by_role("table").get_by_role("link").first.click()
    expect(page.get_by_text("Right: fault")).to_be_visible()
    expect(page.get_by_text("Nothing: every case was answered")).to_be_visible()
