"""From log-in to a streamed answer, and from there to the audit trail."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.live import LivePortal

LogIn = Callable[..., Page]


def test_asking_in_the_playground_streams_an_answer_that_the_auditor_finds(
    log_in: LogIn, live_portal: LivePortal
) -> None:
    page = log_in("developer")
    page.get_by_role("link", name="Playground").first.click()
    page.get_by_label("Model").select_option(live_portal.fake.model)
    page.get_by_label("Longest answer, in tokens").fill("24")
    page.get_by_label("Message").fill("Say something.")
    page.keyboard.press("Control+Enter")
    answer = page.locator(".fh-message-assistant")
    expect(answer).not_to_be_empty()
    expect(page.locator(".fh-message-facts")).to_contain_text("First token after")
    expect(page.locator(".fh-message-facts")).to_contain_text("completion tokens")
    assert (
        page.evaluate("Object.keys(localStorage).concat(Object.keys(sessionStorage)).join()").find(
            "fh_"
        )
        == -1
    )

    auditor = log_in("auditor")
    auditor.get_by_role("link", name="Jobs").first.click()
    auditor.locator("#result_list tbody a").first.click()
    expect(auditor.locator(".fh-timeline li")).to_have_count(4)
    events = auditor.locator("section", has_text="Audit events").locator("tbody tr")
    expect(events.filter(has_text="inference.chat").first).to_be_visible()
    auditor.goto("/admin/audit/auditevent/?action=key.create_playground")
    expect(auditor.locator(".fh-table tbody tr").first).to_contain_text("key.create_playground")


def test_stopping_an_answer_keeps_what_was_said(log_in: LogIn, live_portal: LivePortal) -> None:
    page = log_in("developer")
    page.goto("/admin/playground/")
    page.get_by_label("Model").select_option(live_portal.fake.model)
    page.get_by_label("Longest answer, in tokens").fill("2000")
    page.get_by_label("Message").fill("Go on and on.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".fh-message-assistant")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".fh-message-facts")).to_contain_text("Stopped by you")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_refused_message_is_told_in_words_and_kept_for_another_try(
    log_in: LogIn, live_portal: LivePortal
) -> None:
    page = log_in("developer")
    page.goto("/admin/playground/")
    page.get_by_label("Model").select_option(live_portal.fake.model)
    page.get_by_label("Longest answer, in tokens").fill("100000000")
    page.get_by_label("Message").fill("Too long an answer.")
    page.get_by_role("button", name="Send").click()
    alert = page.locator(".fh-message-failed")
    expect(alert).to_have_text(re.compile(r"\w+ \w+"))
    expect(page.get_by_label("Message")).to_have_value("Too long an answer.")
