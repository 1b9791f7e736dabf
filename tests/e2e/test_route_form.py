"""The form of a route in a real browser."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.factories import unique
from tests.live import LivePortal

LogIn = Callable[..., Page]


def test_making_a_route_works_by_keyboard_alone(log_in: LogIn, live_portal: LivePortal) -> None:
    page, name = log_in("system"), unique("chat")
    page.goto("/admin/inference/route/add/")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    expect(page.get_by_label("Description")).to_be_focused()
    page.keyboard.press("Tab")
    first = page.locator("tbody input").first
    expect(first).to_be_focused()
    page.keyboard.type("3")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    cells = page.locator("section.fh-card tbody tr").first.locator("td")
    expect(cells.nth(0)).to_have_text("1")
    expect(cells.nth(4)).to_have_text("100 %")


def test_pages_of_a_route_speak_chinese(log_in: LogIn) -> None:
    page = log_in("system", language="zh-hans")
    page.goto("/admin/inference/route/add/")
    expect(page.get_by_role("heading", level=1, name="新建路由")).to_be_visible()
    expect(page.get_by_role("columnheader", name="权重")).to_be_visible()
    page.get_by_role("button", name="创建路由").click()
    expect(page.get_by_role("alert").first).to_be_visible()
