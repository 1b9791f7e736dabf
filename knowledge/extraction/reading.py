"""The text of a file, taken out by a child process with bounds on time and memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from knowledge.extraction.checks import TEXT_KINDS, Unreadable, decoded
from knowledge.extraction.formats import plain_text

PROBE_SECONDS: Final = 20
READ_SECONDS: Final = 120
_CHILD: Final = "knowledge.extraction.child"
_ROOT: Final = Path(__file__).resolve().parents[2]


def check_text(kind: str, content: bytes) -> None:
    """Goes on if there is text in a file; of a long one no more than the first of it is looked for.

    Raises:
        Unreadable: there is none, or the file is damaged or protected.
    """
    if kind in TEXT_KINDS:
        _refuse_blank(plain_text(kind, decoded(content)))
    else:
        _ask_child(kind, content, probe=True, seconds=PROBE_SECONDS)


def read_text(kind: str, content: bytes) -> str:
    """All text of a file.

    Raises:
        Unreadable: as ``check_text``, or it takes too long.
    """
    if kind in TEXT_KINDS:
        text = plain_text(kind, decoded(content))
    else:
        text = _ask_child(kind, content, probe=False, seconds=READ_SECONDS)
    _refuse_blank(text)
    return text


def _refuse_blank(text: str) -> None:
    if not text.strip():
        raise Unreadable("There is no text in the file.")


def _ask_child(kind: str, content: bytes, *, probe: bool, seconds: int) -> str:
    words = [sys.executable, "-m", _CHILD, kind, *(["--probe"] if probe else [])]
    try:
        # With an environment of its own: what reads strangers' files is told no secret.
        done = subprocess.run(
            words,
            input=content,
            capture_output=True,
            timeout=seconds,
            cwd=_ROOT,
            env={},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unreadable(
            "Reading the file takes too long: split it, or save its text as txt."
        ) from None
    if done.returncode != 0:
        # Killed by one of its bounds, most likely.
        raise Unreadable("The file can't be read: save it again, or save its text as txt.")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "refusal" in answer:
        raise Unreadable(answer["refusal"])
    return str(answer["text"])
