"""Engines by name. A new engine is one module and one line in the registry."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from inference.engines.base import Emit, Engine, EngineOptions
from portal.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where an engine is found, and whether it gets a process of its own.

    It needs one if its steps hold the interpreter lock, or can take the process down with them.
    """

    target: str
    own_process: bool = False


# Modules are imported only when their engine is made: each brings its own heavy libraries.
_ENGINES = {
    "fake": _Entry("inference.engines.fake:FakeEngine"),
    "openvino": _Entry("inference.engines.openvino:OpenVINOEngine", own_process=True),
}
_AUTO = "openvino"


def engine_names() -> tuple[str, ...]:
    """The names that ``create_engine`` knows, ``auto`` included."""
    return ("auto", *sorted(_ENGINES))


def engine_target(name: str) -> tuple[str, bool]:
    """The module of an engine, and whether it gets a process of its own.

    Raises:
        Invalid: there is no engine of that name.
    """
    entry = _entry(name)
    return entry.target.partition(":")[0], entry.own_process


def create_engine(
    name: str, *, artefact_dir: Path, context_length: int, options: EngineOptions, emit: Emit
) -> Engine:
    """An engine, not loaded yet, in a process of its own where it needs one.

    Args:
        name: one of ``engine_names()``; ``auto`` takes the best for this machine.
        artefact_dir: an imported artefact, see ``inference.artefacts``.
        context_length: most tokens of prompt and completion together.
        options: the deployment's options for this engine.
        emit: receives the events of each step, on a thread of the engine's own.

    Raises:
        Invalid: an unknown name; unusable options, if not found only by ``load``.
    """
    if not _entry(name).own_process:
        return create_engine_here(
            name,
            artefact_dir=artefact_dir,
            context_length=context_length,
            options=options,
            emit=emit,
        )
    from inference.engines.process import ProcessEngine

    return ProcessEngine(
        name, artefact_dir=artefact_dir, context_length=context_length, options=options, emit=emit
    )


def create_engine_here(
    name: str, *, artefact_dir: Path, context_length: int, options: EngineOptions, emit: Emit
) -> Engine:
    """As ``create_engine``, always in this process."""
    module, _, attribute = _entry(name).target.partition(":")
    make = getattr(import_module(module), attribute)
    engine: Engine = make(
        artefact_dir=artefact_dir, context_length=context_length, options=options, emit=emit
    )
    return engine


def _entry(name: str) -> _Entry:
    entry = _ENGINES.get(_AUTO if name == "auto" else name)
    if entry is None:
        raise Invalid(
            f"There is no engine {name!r}; known are {', '.join(engine_names())}.", param="engine"
        )
    return entry
