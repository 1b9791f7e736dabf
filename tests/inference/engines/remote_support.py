"""Adapters against servers of the test's own: what their tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.artefacts import import_byte_level
from inference.engines import create_engine
from inference.engines.base import Engine, EngineStats
from tests.inference.engines.doubles import Double, Plan, Reply, answer_of, delta, usage
from tests.inference.engines.support import Sink
from tests.waiting import eventually

Serve = Callable[..., tuple[Engine, Sink, Double]]


def stats_once(engine: Engine, met: Callable[[EngineStats], bool]) -> EngineStats:
    """The engine's figures, once they are as they should be."""
    eventually(lambda: met(engine.stats()), what=lambda: str(engine.stats()))
    return engine.stats()


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact without weights, whose tokens are bytes."""
    store = tmp_path_factory.mktemp("artefacts")
    return store / import_byte_level(store, context_length=4096).id


@pytest.fixture
def started() -> Iterator[list[Any]]:
    """Engines and doubles of a test, closed after it."""
    made: list[Any] = []
    yield made
    for one in reversed(made):
        one.close()


class Starter:
    """Starts servers, and engines that speak to them."""

    def __init__(self, artefact: Path, started: list[Any]) -> None:
        self._artefact = artefact
        self._started = started

    def double(self, plan: Plan) -> Double:
        double = Double(plan)
        self._started.append(double)
        return double

    def engine(self, name: str, double: Double, **options: Any) -> tuple[Engine, Sink]:
        """An engine that is not loaded yet."""
        sink = Sink()
        options = {"url": double.url, "poll_seconds": 0, "ready_seconds": 30} | options
        engine = create_engine(
            name, artefact_dir=self._artefact, context_length=4096, options=options, emit=sink
        )
        self._started.append(engine)
        return engine, sink


@pytest.fixture
def starter(artefact: Path, started: list[Any]) -> Starter:
    return Starter(artefact, started)


@pytest.fixture
def serve_openai(starter: Starter) -> Serve:
    def build(plan: Plan | Reply = answer_of, **options: Any) -> tuple[Engine, Sink, Double]:
        """A loaded engine; ``plan`` answers what comes after loading."""
        double = starter.double(answer_of)
        engine, sink = starter.engine("openai_http", double, **options)
        if options.get("api") == "chat" or options.get("family") == "tgi":
            double.plan = lambda asked: Reply([delta("x", reason="stop"), usage(1, 1), "[DONE]"])
        engine.load()
        double.asked.clear()
        double.plan = plan if callable(plan) else lambda asked: plan
        return engine, sink, double

    return build
