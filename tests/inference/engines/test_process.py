"""An engine in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.engines.base import DuplicateRequest, EngineBroken, EngineClosed
from inference.engines.process import ProcessEngine
from portal.core.errors import PortalError
from tests.inference.engines.support import Sink, request


def build(sink: Sink, **options: Any) -> ProcessEngine:
    return ProcessEngine(
        "fake", artefact_dir=Path(), context_length=4096, options=options, emit=sink
    )


@pytest.fixture
def served() -> Iterator[tuple[ProcessEngine, Sink]]:
    sink = Sink()
    engine = build(sink, token_ms=1, slots=3, fail_on="boom")
    engine.load()
    yield engine, sink
    engine.close()


def test_submit_serves_cancels_and_fails_as_in_process(
    served: tuple[ProcessEngine, Sink],
) -> None:
    engine, sink = served
    engine.submit(request("long", max_tokens=4000))
    engine.submit(request("a", max_tokens=5))
    engine.submit(request("b", content="boom"))
    with pytest.raises(DuplicateRequest):
        engine.submit(request("long"))
    assert sink.done("a").completion_tokens == sink.tokens("a") == 5
    assert sink.failed("b").code == "request_refused"
    stats = engine.stats()
    assert (stats.slots, stats.running + stats.waiting) == (3, 1)
    engine.cancel("long")
    engine.cancel("nobody")
    done = sink.done("long")
    assert (done.reason, done.completion_tokens) == ("cancelled", sink.tokens("long"))
    assert engine.drain(timeout=10)
    with pytest.raises(EngineClosed):
        engine.submit(request("late"))


def test_close_cancels_what_is_left() -> None:
    sink = Sink()
    engine = build(sink, token_ms=3_600_000)
    engine.load()
    engine.submit(request("a"))
    engine.close()
    assert sink.done("a").reason == "cancelled"
    assert engine.stats().failure is None
    engine.close()


def test_death_of_the_process_fails_its_requests_once(
    served: tuple[ProcessEngine, Sink],
) -> None:
    engine, sink = served
    engine.submit(request("a", max_tokens=4000))
    sink.wait(lambda: bool(sink.of("a")))
    assert engine._process is not None
    os.kill(engine._process.pid, signal.SIGKILL)
    assert sink.failed("a").code == "engine_failed"
    assert engine.drain(timeout=10)
    assert len(sink.ends("a")) == 1
    assert "-9" in (engine.stats().failure or "")
    with pytest.raises(EngineBroken):
        engine.submit(request("b"))


def test_load_with_wrong_options_raises_the_childs_error() -> None:
    engine = build(Sink(), slots=0)
    with pytest.raises(PortalError, match="slots") as refused:
        engine.load()
    assert (refused.value.error_code, refused.value.error_status) == ("invalid", 400)


def test_death_of_the_owner_ends_the_process() -> None:
    program = """
import os
from pathlib import Path
from inference.engines.process import ProcessEngine
from tests.inference.engines.support import request
engine = ProcessEngine("fake", artefact_dir=Path(), context_length=4096, options={}, emit=print)
engine.load()
engine.submit(request("a", max_tokens=4000))
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).parents[3]
    # The engine inherits the pipe: it is at its end when both processes are gone.
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stderr == ""
