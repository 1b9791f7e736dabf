"""``python -m knowledge.extraction.child KIND [--probe]``: a file comes in, its text goes out.

The answer is one JSON object: ``text``, or ``refusal`` with a sentence. With ``--probe`` the text
is the first that was found.
"""

import io
import json
import logging
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, Final

from knowledge.extraction.formats import rows_text

_MOST_MEMORY: Final = 1536 * 1024 * 1024
_MOST_CPU_SECONDS: Final = 120
_MOST_CHARS: Final = 20_000_000

_NO_TEXT: Final = {
    "pdf": "There is no text in the PDF, only pictures: run text recognition (OCR) on it first.",
    "docx": "There is no text in the file.",
    "xlsx": "There is no text in the file.",
}
_DAMAGED: Final = "The file is damaged: open it in its own program and save it again."
_PROTECTED: Final = "The PDF is protected with a password: save it without one."
_TOO_LONG: Final = "There is more text in the file than can be read: split it."


class _Refused(Exception):
    pass


def _pdf(content: bytes) -> Iterator[str]:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise _Refused(_PROTECTED)
        for page in reader.pages:
            yield page.extract_text()
    except DependencyError:
        raise _Refused(_PROTECTED) from None
    except (PyPdfError, ValueError, KeyError, IndexError, TypeError, AttributeError) as fault:
        # What a parser trips over in a file of a stranger's making.
        raise _Refused(_DAMAGED) from fault


def _docx(content: bytes) -> Iterator[str]:
    from docx import Document
    from docx.opc.exceptions import OpcError
    from docx.table import Table
    from lxml.etree import LxmlError

    try:
        for block in Document(io.BytesIO(content)).iter_inner_content():
            if isinstance(block, Table):
                cells = ([cell.text for cell in row.cells] for row in block.rows)
                yield "\n".join(rows_text(cells))
            else:
                yield block.text
    except (OpcError, LxmlError, zipfile.BadZipFile, ValueError, KeyError) as fault:
        raise _Refused(_DAMAGED) from fault


def _xlsx(content: bytes) -> Iterator[str]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        for sheet in book.worksheets:
            rows = (
                ["" if value is None else str(value) for value in row]
                for row in sheet.iter_rows(values_only=True)
            )
            lines = list(rows_text(rows))
            if lines:
                yield f"{sheet.title}\n\n" + "\n".join(lines)
    except (InvalidFileException, zipfile.BadZipFile, ValueError, KeyError, TypeError) as fault:
        raise _Refused(_DAMAGED) from fault


_READERS: Final[dict[str, Callable[[bytes], Iterator[str]]]] = {
    "pdf": _pdf,
    "docx": _docx,
    "xlsx": _xlsx,
}


def _text(kind: str, content: bytes, *, probe: bool) -> str:
    pieces: list[str] = []
    size = 0
    for piece in _READERS[kind](content):
        # Half of a pair, and NUL, are no text that can be stored.
        clean = piece.encode(errors="ignore").decode().replace("\0", "").strip()
        if not clean:
            continue
        if probe:
            return clean[:100]
        size += len(clean)
        if size > _MOST_CHARS:
            raise _Refused(_TOO_LONG)
        pieces.append(clean)
    if not pieces:
        raise _Refused(_NO_TEXT[kind])
    return "\n\n".join(pieces)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_SECONDS, _MOST_CPU_SECONDS))
    # It tells of each oddity of a file.
    logging.disable()
    kind, probe = sys.argv[1], "--probe" in sys.argv[2:]
    answer: dict[str, Any]
    try:
        answer = {"text": _text(kind, sys.stdin.buffer.read(), probe=probe)}
    except _Refused as refusal:
        answer = {"refusal": str(refusal)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
