"""The pages of docs/ hold together, and what is generated is up to date."""

import re
from pathlib import Path

import pytest

from portal.core.management.commands.settings_doc import settings_page
from tests.start.checkouts import REPOSITORY

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE_PATH = re.compile(r"`((?:portal|audit|tenants|inference|tests|bin|docs)/[\w./-]+?)`")
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    texts = (re.sub(r"[^\w\- ]", "", text.lower()) for text in _HEADING.findall(page.read_text()))
    return {text.strip().replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_follow_every_link_of_a_page_arrives(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_look_for_every_file_that_a_page_names_finds_it(page: Path) -> None:
    named = {path.rstrip("/") for path in _CODE_PATH.findall(page.read_text())}
    # Capitals stand for a name that the reader chooses.
    real = {path for path in named if not re.search(r"[A-Z]{3}", path)}
    assert [path for path in real if not (REPOSITORY / path).exists()] == []


def test_settings_page_is_what_the_code_says() -> None:
    assert (REPOSITORY / "docs" / "settings.md").read_text() == settings_page()
