"""Knowledge in step with Dify in a real browser: the plan, a drift and its decision, a receipt."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from knowledge.services import delete_document
from tests.e2e.conftest import House
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.double.state import Workspace
from tests.knowledge.sync.bench import Bench
from tests.live import LivePortal

LogIn = Callable[..., Page]


@pytest.fixture
def dify() -> Iterator[DifyDouble]:
    with DifyDouble() as double:
        yield double


def test_drift_is_shown_decided_and_gone(
    log_in: LogIn, house: House, live_portal: LivePortal, dify: DifyDouble
) -> None:
    bench = Bench(house.a, dify, live_portal.servers.url("gateway"))
    bench.policy("ask")
    base = bench.base("House rules")
    bench.text(base, "lunch.txt", "Lunch is at noon.")
    old = bench.text(base, "old.txt", "Nobody reads this.")
    page = log_in("owner")
    page.get_by_role("link", name="Connections").click()
    page.get_by_role("link", name=bench.connection.name).click()
    plan = page.get_by_role("region", name="What will be done")
    expect(plan).to_contain_text("House rules")
    expect(plan).to_contain_text("lunch.txt")
    bench.settle()
    page.reload()
    expect(plan).to_be_hidden()

    def rewrite(own: Workspace) -> None:
        (dataset,) = own.datasets.values()
        document = next(d for d in dataset.documents.values() if d.name == "lunch.txt")
        document.name, document.enabled = "dinner.txt", False

    dify.click(rewrite)
    bench.run(look=True)
    page.reload()
    expect(plan).to_contain_text("lunch.txt")
    plan.get_by_role("link").first.click()
    changed = page.get_by_role("region", name="Changed in Dify")
    expect(changed.get_by_role("row", name="name lunch.txt dinner.txt")).to_be_visible()
    expect(changed.get_by_role("row", name="switched on Yes No")).to_be_visible()
    page.get_by_role("link", name="Keep the portal's version").click()
    page.get_by_role("button", name="Keep the portal's version").click()
    expect(page.get_by_text("It is put back within a second or two.")).to_be_visible()
    bench.settle(look=True)
    assert "lunch.txt" in bench.in_dify()["House rules"]
    delete_document(context=bench.context, document_id=old.pk)
    bench.settle()
    page.reload()
    expect(plan).to_be_hidden()
    page.goto("/admin/knowledge/deletionreceipt/")
    expect(page.locator("tbody tr", has_text="old.txt")).to_be_visible()
