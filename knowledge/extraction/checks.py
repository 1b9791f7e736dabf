"""What can be said of a file without taking it apart: pure functions."""

import io
import zipfile
from typing import Final

from portal.core.errors import Invalid

MOST_BYTES: Final = 15 * 1024 * 1024
"""The largest file, as in Dify."""

MOST_UNPACKED_BYTES: Final = 200 * 1024 * 1024
_MOST_MEMBERS: Final = 10_000
_MOST_RATIO: Final = 200
"""Office documents pack their XML to a tenth or so; text of one letter packs to a thousandth."""

_SMALL_BYTES: Final = 10 * 1024 * 1024

KINDS: Final = {
    "txt": "txt",
    "text": "txt",
    "log": "txt",
    "md": "md",
    "markdown": "md",
    "html": "html",
    "htm": "html",
    "csv": "csv",
    "pdf": "pdf",
    "docx": "docx",
    "xlsx": "xlsx",
}
"""What a file is, by the end of its name."""

TEXT_KINDS: Final = frozenset({"txt", "md", "html", "csv"})
_OFFICE: Final = {"docx": "word/document.xml", "xlsx": "xl/workbook.xml"}


class Unreadable(Invalid):
    """A file whose text can't be had; the sentence says what to do about it."""

    code = "unreadable_file"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="file")


def kind_of(name: str) -> str:
    """What a file is by its name.

    Raises:
        Unreadable: nothing that can be read.
    """
    kind = KINDS.get(name.rpartition(".")[2].lower()) if "." in name else None
    if kind is None:
        raise Unreadable(
            "Files of this type can't be read: use txt, md, html, csv, pdf, docx or xlsx."
        )
    return kind


def check_file(name: str, content: bytes) -> str:
    """The kind of a file that is what its name says, and safe to take apart.

    Raises:
        Unreadable: empty, too large, of another type than its name says, or a zip bomb.
    """
    kind = kind_of(name)
    if not content.strip():
        raise Unreadable("The file is empty.")
    if len(content) > MOST_BYTES:
        raise Unreadable("The file is larger than 15 MB: split it into smaller ones.")
    if kind == "pdf":
        _check_pdf(content)
    elif kind in _OFFICE:
        _check_office(kind, content)
    else:
        decoded(content)
    return kind


def decoded(content: bytes) -> str:
    """The text of a text file: UTF-8, UTF-16 with its mark, or GB 18030, as Chinese Windows writes.

    Raises:
        Unreadable: it is none of these, or no text at all.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        candidates = ["utf-16"]
    else:
        candidates = ["utf-8-sig", "gb18030"]
    for encoding in candidates:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not _looks_binary(text):
            return text
    raise Unreadable("The file is not text in a known encoding: save it as UTF-8.")


def _looks_binary(text: str) -> bool:
    """Whether there are characters that no text has: controls, and those for private use."""
    return any(
        (c < " " and c not in "\t\n\r\f") or c == "\x7f" or "\ue000" <= c <= "\uf8ff" for c in text
    )


def _check_pdf(content: bytes) -> None:
    # Readers allow for rubbish before the header.
    if b"%PDF-" not in content[:1024]:
        raise _other_content("PDF")


def _other_content(what: str) -> Unreadable:
    return Unreadable(
        f"The content is not what the file's name says: it is no {what}. Save it as one, or give "
        "it the right extension."
    )


def _check_office(kind: str, content: bytes) -> None:
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable(
            "The file is protected with a password, or of an older Office: save it without one, "
            f"as {kind}."
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise _other_content(kind) from None
    if _OFFICE[kind] not in {m.filename for m in members}:
        raise _other_content(kind)
    unpacked = sum(m.file_size for m in members)
    if (
        len(members) > _MOST_MEMBERS
        or unpacked > MOST_UNPACKED_BYTES
        or (unpacked > _SMALL_BYTES and unpacked > _MOST_RATIO * len(content))
    ):
        raise Unreadable(
            "The file unpacks to far more than a document holds, so it is not opened. Save what "
            "you need of it as a new file."
        )
