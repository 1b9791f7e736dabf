"""What may come in as a file, and the text that is found in it."""

import pytest

from knowledge.extraction.checks import MOST_BYTES, Unreadable, check_file
from knowledge.extraction.reading import check_text, read_text
from tests.knowledge import files


def _read(name: str, content: bytes) -> str:
    kind = check_file(name, content)
    check_text(kind, content)
    return read_text(kind, content)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", "café 发票".encode(), "café 发票"),
        ("a.TXT", "发票报销".encode("gb18030"), "发票报销"),
        ("a.md", "# 标题\r\ntext".encode("utf-16"), "# 标题\ntext"),
        ("a.html", b"<p>Hi <b>there</b></p><script>no()</script><p>You</p>", "Hi there\n\nYou"),
        ("a.csv", "品名;价\n泵;12\n".encode(), "品名; 价\n品名: 泵; 价: 12"),
        ("a.pdf", files.pdf("Pump 42"), "Pump 42"),
        ("a.docx", files.docx("第一段", "Second"), "第一段\n\nSecond"),
        ("a.xlsx", files.xlsx(["Name", "Price"], ["pump", 12]), "Name: pump; Price: 12"),
    ],
)
def test_read_a_file_of_each_kind_gives_its_text(name: str, content: bytes, text: str) -> None:
    assert text in _read(name, content)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.exe", b"MZ", "use txt, md, html"),
        ("noextension", b"text", "use txt, md, html"),
        ("a.txt", b"  \n ", "is empty"),
        ("a.txt", b"x" * (MOST_BYTES + 1), "larger than 15 MB"),
        ("a.txt", bytes(range(256)) * 4, "save it as UTF-8"),
        ("a.txt", b"a\0b", "save it as UTF-8"),
        ("a.pdf", b"plain text", "it is no PDF"),
        ("a.docx", files.pdf("x"), "it is no docx"),
        ("a.docx", files.xlsx(["x"]), "it is no docx"),
        ("a.docx", files.bomb(), "unpacks to far more"),
        ("a.xlsx", files.bomb("xlsx"), "unpacks to far more"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0" + bytes(100), "protected with a password"),
        ("a.pdf", files.pdf(), "run text recognition (OCR)"),
        ("a.pdf", files.pdf("x", password="secret"), "protected with a password"),
        ("a.pdf", b"%PDF-1.7\n garbage", "is damaged"),
        ("a.docx", files.docx(), "no text"),
        ("a.html", b"<script>x()</script>", "no text"),
    ],
)
def test_read_a_file_that_cannot_be_read_says_what_to_do(
    name: str, content: bytes, told: str
) -> None:
    with pytest.raises(Unreadable, match=told.replace("(", r"\(").replace(")", r"\)")):
        _read(name, content)


def test_read_a_file_of_exactly_15_mb_is_taken() -> None:
    assert check_file("a.txt", b"x" * MOST_BYTES) == "txt"
