"""bin/start as a person runs it: a fresh checkout, the printed lines, Ctrl-C, once more."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.start.checkouts import (
    STOP_S,
    Terminal,
    checkout,
    ends,
    press_ctrl_c,
    processes_of,
    read_until_ready,
    terminal,
)
from tests.start.people import ask, logged_in, streamed_text
from tests.supervisor.product import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(600)

SECOND_START_S = 20.0
_TRIES = 3
PEOPLE = ("admin", "security", "auditor", "tenant_owner")
FACTS = {"url", "api_key", "model", "embedding_model", "app"} | {
    f"{who}_{what}" for who in PEOPLE for what in ("email", "password")
}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Terminal]:
    with terminal(checkout(tmp_path / "free hold"), tmp_path / "home") as opened:
        yield opened


def facts_of(data_dir: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((data_dir / "start.json").read_text())
    return facts


def start_in_time(shell: Terminal, port: int) -> subprocess.Popen[str]:
    """A start on data that exist; fails unless one of a few tries is ready within its deadline.

    What else the machine does is not ours to judge: one good start shows what ours costs.
    """
    took: list[float] = []
    while len(took) < _TRIES:
        began = time.monotonic()
        process = shell.start("--port", str(port))
        read_until_ready(process)
        took.append(time.monotonic() - began)
        if took[-1] < SECOND_START_S:
            return process
        assert press_ctrl_c(process) == 0
    pytest.fail(f"{_TRIES} starts took {took} s each, and {SECOND_START_S} s are the limit")


def test_start_twice_serves_what_it_prints_and_leaves_nothing_behind(shell: Terminal) -> None:
    data_dir = shell.root / "var"
    port = free_port()
    first = shell.start("--port", str(port))
    said = read_until_ready(first)
    facts = facts_of(data_dir)

    assert set(facts) == FACTS
    assert all(isinstance(value, str) and value for value in facts.values())
    assert oct((data_dir / "start.json").stat().st_mode & 0o777) == "0o600"
    assert facts["url"] == f"http://127.0.0.1:{port}"
    assert all(facts[name] in said for name in FACTS)
    passwords = {facts[f"{who}_password"] for who in PEOPLE}
    assert len(passwords) == len(PEOPLE)
    assert min(map(len, passwords)) >= 12

    line, app_line = re.findall(r"^curl .*$", said, re.MULTILINE)
    assert streamed_text(shell.run(line)).strip()
    eventually(lambda: '"document":"leave.md"' in shell.run(app_line), within=60, every=1)
    for who in PEOPLE:
        with logged_in(facts, who) as browser:
            assert browser.get("/admin/").status_code == 200

    running = processes_of(data_dir)
    # PostgreSQL, Valkey, web, inference worker and its engine, io worker, beat.
    assert len(running) >= 7
    assert press_ctrl_c(first) == 0
    assert [pid for pid in running if not ends(pid)] == []
    assert processes_of(data_dir) == []

    second = start_in_time(shell, port)
    assert facts_of(data_dir) == facts
    assert ask(facts, "Are you still there?").strip()

    running = processes_of(data_dir)
    assert "Freehold is stopped." in shell.run("bin/stop")
    assert second.wait(STOP_S) == 0
    assert [pid for pid in running if not ends(pid)] == []
    assert processes_of(data_dir) == []
