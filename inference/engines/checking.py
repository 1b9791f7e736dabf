"""Checks a deployment's engine options before a worker loads with them.

An engine's module brings heavy libraries, so an engine that gets a process of its own is asked in
one: ``python -m inference.engines.checking NAME 0``, with the options on standard input (1 in the
place of 0 forgives those that it does not have).
"""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import structlog

import inference
from inference.engines import engine_target
from inference.engines.base import EngineOptions
from inference.engines.choice import candidates
from inference.engines.options import known_options, options_of, parse_options
from portal.core.errors import Invalid

log = structlog.get_logger(__name__)

_ROOT: Final = Path(inference.__file__).resolve().parents[1]
_PATIENCE_SECONDS: Final = 30.0
_WRONG: Final = 3


def check_options(engine: str, options: EngineOptions, *, model_format: str = "") -> None:
    """Refuses what the engine's own options don't allow.

    An engine that can't be imported on this machine is not asked: it may be there on the workers'.

    Args:
        model_format: of the model that is served; by it is known what ``auto`` can mean.

    Raises:
        Invalid: an unknown engine, or the option that is at fault.
    """
    if engine != "auto":
        engine_target(engine)
        if options:
            _ask(engine, options, known_alone=False)
        return
    if not options:
        return
    engines = candidates(model_format)
    found = [_ask(each, options, known_alone=True) for each in engines]
    known = {name for names in found if names is not None for name in names}
    unknown = sorted(options.keys() - known)
    if unknown and None not in found:
        raise Invalid(
            f"The options of engine auto are wrong: no engine that it can mean for this model "
            f"({', '.join(engines)}) has the option `{unknown[0]}`.",
            param="options",
        )


def _ask(engine: str, options: EngineOptions, *, known_alone: bool) -> list[str] | None:
    """The names of the options that an engine has; None if it can't be asked here.

    Args:
        known_alone: those that it does not have are no fault.

    Raises:
        Invalid: the option that is at fault.
    """
    _, own_process = engine_target(engine)
    if own_process:
        return _ask_apart(engine, options, known_alone=known_alone)
    return _ask_here(engine, options, known_alone=known_alone)


def _ask_here(engine: str, options: EngineOptions, *, known_alone: bool) -> list[str] | None:
    module = import_module(engine_target(engine)[0])
    kind = options_of(module)
    if kind is None:
        return None
    known = known_options(module, options)
    parse_options(kind, known if known_alone else options, engine=engine)
    return list(known)


def _ask_apart(engine: str, options: EngineOptions, *, known_alone: bool) -> list[str] | None:
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "inference.engines.checking", engine, str(int(known_alone))],
            input=json.dumps(dict(options)),
            capture_output=True,
            text=True,
            cwd=_ROOT,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        log.warning("options.unchecked", engine=engine, error=str(fault))
        return None
    if asked.returncode == _WRONG:
        raise Invalid(asked.stdout.strip(), param="options")
    if asked.returncode != 0:
        log.info("options.unchecked", engine=engine, status=asked.returncode)
        return None
    # Libraries may have spoken before.
    names: list[str] | None = json.loads(asked.stdout.splitlines()[-1])
    return names


def main() -> int:
    """Checks in this process; the answer is the exit status, and what was found on its output."""
    engine, known_alone = sys.argv[1], sys.argv[2] == "1"
    try:
        names = _ask_here(engine, json.load(sys.stdin), known_alone=known_alone)
    except Invalid as refusal:
        sys.stdout.write(refusal.message)
        return _WRONG
    sys.stdout.write(f"{json.dumps(names)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
