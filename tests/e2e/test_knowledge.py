"""A knowledge base in a real browser: many files at once, each with what became of it."""

from collections.abc import Callable

from playwright.sync_api import FilePayload, Page, expect

from knowledge.services import create_knowledge_base
from tests.e2e.conftest import House
from tests.knowledge import files
from tests.knowledge.support import index

LogIn = Callable[..., Page]


def test_files_are_sent_with_their_progress_and_can_be_asked(log_in: LogIn, house: House) -> None:
    base = create_knowledge_base(context=house.a.context, name="Handbook", embedding_model="")
    page = log_in("developer")
    page.get_by_role("link", name="Knowledge bases").click()
    page.get_by_role("link", name="Handbook").click()
    expect(page.get_by_text("No document yet")).to_be_visible()
    page.get_by_label("Files").set_input_files(
        [
            FilePayload(name="rules.txt", mimeType="text/plain", buffer=b"Pay by card."),
            FilePayload(name="scan.pdf", mimeType="application/pdf", buffer=files.pdf()),
            FilePayload(
                name="报销.docx", mimeType="", buffer=files.docx("发票必须在月底之前提交。")
            ),
        ]
    )
    sent = page.locator(".fh-drop-list li")
    expect(sent.nth(0)).to_contain_text("Added")
    expect(sent.nth(1)).to_contain_text("run text recognition (OCR)")
    expect(sent.nth(2)).to_contain_text("Added")
    documents = page.get_by_role("region", name="Documents")
    expect(documents.get_by_text("Waiting to be read")).to_have_count(2)
    index(house.a)
    # The page asks again by itself.
    expect(documents.get_by_text("Ready")).to_have_count(2)
    page.get_by_role("link", name="Test retrieval").click()
    page.get_by_label("Question").fill("发票什么时候提交")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("发票必须在月底之前提交。")).to_be_visible()
    assert page.url.endswith(f"{base.pk}/ask/")
