"""Connecting a Dify in the browser."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.knowledge.dify.double import DifyDouble

LogIn = Callable[..., Page]


@pytest.fixture
def dify() -> Iterator[DifyDouble]:
    with DifyDouble() as double:
        yield double


def test_connecting_a_dify_says_what_is_wrong_until_it_works(
    log_in: LogIn, dify: DifyDouble
) -> None:
    page = log_in("owner")
    page.goto("/admin/knowledge/connection/add/")
    sent = {
        "name": "Works",
        "base_url": dify.url,
        "workspace_id": dify.own.id,
        "console_key": "a-wrong-console-key",
        "dataset_key": dify.dataset_key,
    }
    for name, value in sent.items():
        page.locator(f"[name={name}]").fill(value)
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("alert")).to_contain_text("Dify refuses the console key")
    # Keys are never sent back to the browser; all else is.
    expect(page.locator("[name=dataset_key]")).to_have_value("")
    expect(page.locator("[name=base_url]")).to_have_value(dify.url)
    page.locator("[name=console_key]").fill(dify.console_key)
    page.locator("[name=dataset_key]").fill(dify.dataset_key)
    page.get_by_role("button", name="Test and save").click()
    expect(page.locator(".fh-facts")).to_contain_text("1.16.0")
    expect(page.get_by_role("status")).to_contain_text("This Dify has 2 workspaces.")

    dify.fail("bad_gateway", times=-1)
    page.get_by_role("link", name="Test now").click()
    page.get_by_role("button", name="Test now").click()
    expect(page.get_by_role("alert")).to_contain_text("Dify does not answer, but what stands")
    page.goto("/admin/knowledge/connection/")
    row = page.locator("tbody tr", has_text="Works")
    expect(row).to_contain_text("Not working")
    expect(row).to_contain_text("Dify does not answer, but what stands")
