"""Every command in README.md, run in its order in a fresh checkout."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.start.checkouts import (
    REPOSITORY,
    STOP_S,
    Terminal,
    checkout,
    processes_of,
    read_until_ready,
    terminal,
)
from tests.start.people import streamed_text
from tests.supervisor.product import free_port

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_PORT = re.compile(r"(?<=--port )\d+")
_STANDARD_PORT = "8000"


@dataclass(frozen=True)
class Block:
    """One fenced block of shell; ``reason`` says why no test can run it."""

    text: str
    reason: str | None

    @property
    def starts(self) -> bool:
        return self.text.startswith("bin/start")


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, all of which must be shell."""
    found = list(_BLOCK.finditer(page))
    assert {match["language"] for match in found} <= {"sh"}
    # An opening fence that the pattern missed would hide a command.
    assert page.count("\n```") == 2 * len(found)
    return [Block(match["text"], match["reason"]) for match in found]


README = blocks((REPOSITORY / "README.md").read_text())


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    with terminal(checkout(tmp_path / "freehold"), tmp_path / "home") as opened:
        yield opened


class Reader:
    """Somebody who types the page's commands: ``bin/start`` in one terminal, the rest in another.

    Ports are replaced by free ones; nothing else is.
    """

    def __init__(self, shell: Terminal) -> None:
        self._shell = shell
        self._port = free_port()
        self._started: subprocess.Popen[str] | None = None
        self.said: dict[str, str] = {}

    def type(self, block: Block) -> None:
        if block.starts:
            self._start(block.text)
            return
        script = block.text.replace(f"127.0.0.1:{_STANDARD_PORT}", f"127.0.0.1:{self._port}")
        self.said[block.text] = self._shell.run(script, timeout=300)
        if block.text.startswith("bin/stop"):
            assert self._started is not None
            assert self._started.wait(STOP_S) == 0

    def _start(self, text: str) -> None:
        self._port = free_port()
        line, given = _PORT.subn(str(self._port), text.strip())
        words = line.replace("~", str(self._shell.home)).split()[1:]
        if not given:
            words += ["--port", str(self._port)]
        self._started = self._shell.start(*words)
        read_until_ready(self._started)

    def output_of(self, part: str) -> str:
        """What the one block with these words said."""
        (said,) = [said for text, said in self.said.items() if part in text]
        return said


@pytest.mark.timeout(900)
def test_run_every_command_of_the_readme_works(shell: Terminal) -> None:
    reader = Reader(shell)
    for block in README:
        if block.reason is None:
            reader.type(block)
    assert streamed_text(reader.output_of("/v1/chat/completions")).strip()
    assert "event: done" in reader.output_of("/apps/handbook/chat")
    assert "CompletionUsage(" in reader.output_of("from openai import OpenAI")
    assert '"status":"ready"' in reader.output_of("/health/ready")
    assert "CREATE ROLE" in reader.output_of("roles --print")
    assert "passed" in reader.output_of("bin/test tests")
    assert processes_of(shell.root / "var") == []
    assert processes_of(shell.home / "freehold-data") == []


def test_command_that_is_not_run_is_one_that_the_test_names() -> None:
    assert [block.text.split("\n")[0] for block in README if block.reason is not None] == [
        "sudo apt install python3 python3-venv curl",
        "bin/test",
    ]


def test_inline_command_names_a_file_that_exists() -> None:
    page = (REPOSITORY / "README.md").read_text()
    commands = set(re.findall(r"`(bin/\w+|manage\.py)", page))
    assert commands >= {"bin/start", "bin/test", "bin/check"}
    assert [name for name in commands if not (REPOSITORY / name).is_file()] == []
