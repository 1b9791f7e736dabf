"""Simplified Chinese is complete, and what is compiled is what was written."""

import gettext
import re
from pathlib import Path

from portal.settings import LOCALE_PATHS

FOLDER = Path(LOCALE_PATHS[0]) / "zh_Hans" / "LC_MESSAGES"
ENTRY = re.compile(
    r'^(?:msgctxt "(?P<context>.*)"\n)?msgid "(?P<id>.+)"\n(?:msgid_plural ".*"\n)?'
    r'msgstr(?:\[0\])? "(?P<text>.*)"$',
    re.MULTILINE,
)


def _entries() -> list[tuple[str, str, str]]:
    written = (FOLDER / "django.po").read_text()
    return [
        (e["context"] or "", _plain(e["id"]), _plain(e["text"])) for e in ENTRY.finditer(written)
    ]


def _plain(text: str) -> str:
    return text.replace('\\"', '"').replace("\\n", "\n")


def test_every_text_has_chinese_words() -> None:
    entries = _entries()
    assert len(entries) > 400
    assert [e for e in entries if not e[2]] == []
    assert "fuzzy" not in (FOLDER / "django.po").read_text()


def test_chinese_keeps_every_place_of_its_english() -> None:
    place = re.compile(r"%\(\w+\)s|%s|\{\w+\}|</?strong>")
    wrong = [
        (english, chinese)
        for context, english, chinese in _entries()
        if context != "count" and sorted(place.findall(english)) != sorted(place.findall(chinese))
    ]
    assert wrong == []


def test_compiled_catalogue_is_the_written_one() -> None:
    with (FOLDER / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for context, english, chinese in _entries():
        if context == "count":
            continue
        said = compiled.pgettext(context, english) if context else compiled.gettext(english)
        assert said == chinese
