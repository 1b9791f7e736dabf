"""Text out of text files: pure functions."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from html.parser import HTMLParser
from typing import Final

_PARAGRAPHS: Final = frozenset(
    ("article", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "p", "section", "table")
)
_LINES: Final = frozenset(
    ("address", "br", "caption", "dd", "div", "dt", "footer", "header", "hr", "li", "ol", "pre")
) | frozenset(("figcaption", "main", "nav", "td", "th", "title", "tr", "ul"))
_UNSEEN: Final = frozenset({"script", "style", "template", "noscript"})
_MOST_FIELD_CHARS: Final = 1_000_000


def plain_text(kind: str, text: str) -> str:
    """The text that a reader of the file sees.

    Args:
        kind: ``txt``, ``md``, ``html`` or ``csv``.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if kind == "html":
        return _html_text(text)
    return _csv_text(text) if kind == "csv" else text


def rows_text(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A line for each row of a table, in which each value stands beside its heading.

    A passage is read without the table around it, so each row has to speak for itself.
    """
    headings: Sequence[str] | None = None
    for row in rows:
        if not any(value.strip() for value in row):
            continue
        if headings is None:
            headings = row
            yield "; ".join(h.strip() for h in row if h.strip())
            continue
        yield "; ".join(
            f"{headings[n].strip()}: {value.strip()}"
            if n < len(headings) and headings[n].strip()
            else value.strip()
            for n, value in enumerate(row)
            if value.strip()
        )


def _csv_text(text: str) -> str:
    csv.field_size_limit(_MOST_FIELD_CHARS)
    head = text[:4096]
    delimiter = max(",;\t|", key=head.count)
    try:
        return "\n".join(rows_text(csv.reader(io.StringIO(text), delimiter=delimiter)))
    except csv.Error:
        # Nothing but its lines, then.
        return text


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN and self._unseen:
            self._unseen -= 1
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(re.sub(r"\s+", " ", data))

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.pieces.append("\n\n")
        elif tag in _LINES:
            self.pieces.append("\n")


def _html_text(text: str) -> str:
    parser = _Text()
    parser.feed(text)
    parser.close()
    lines = [line.strip() for line in "".join(parser.pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
