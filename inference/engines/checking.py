"""Checks a deployment's engine options before a worker loads with them.

An engine's module brings heavy libraries, so an engine that gets a process of its own is asked in
one: ``python -m inference.engines.checking NAME``, with the options on standard input.
"""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

import inference
from inference.engines import engine_target
from inference.engines.base import EngineOptions
from inference.engines.options import parse_options
from portal.core.errors import Invalid

log = structlog.get_logger(__name__)

_ROOT: Final = Path(inference.__file__).resolve().parents[1]
_PATIENCE_SECONDS: Final = 30.0
_WRONG: Final = 3


def check_options(engine: str, options: EngineOptions) -> None:
    """Refuses what the engine's own options don't allow.

    An engine that can't be imported on this machine is not asked: it may be there on the workers'.
    Nor is any for ``auto``: only the worker's machine knows which that is.

    Raises:
        Invalid: an unknown engine, or the option that is at fault.
    """
    if engine == "auto":
        return
    module, own_process = engine_target(engine)
    if not options:
        return
    if own_process:
        _check_apart(engine, options)
    else:
        _check_here(engine, module, options)


def _check_here(engine: str, module: str, options: EngineOptions) -> None:
    kind = _options_of(import_module(module))
    if kind is not None:
        parse_options(kind, options, engine=engine)


def _options_of(module: Any) -> type[msgspec.Struct] | None:
    """The one structure of options in an engine's module; None where it is not plain which."""
    found = {
        value
        for name, value in vars(module).items()
        if name.endswith("Options")
        and isinstance(value, type)
        and issubclass(value, msgspec.Struct)
    }
    return found.pop() if len(found) == 1 else None


def _check_apart(engine: str, options: EngineOptions) -> None:
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "inference.engines.checking", engine],
            input=json.dumps(dict(options)),
            capture_output=True,
            text=True,
            cwd=_ROOT,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        log.warning("options.unchecked", engine=engine, error=str(fault))
        return
    if asked.returncode == _WRONG:
        raise Invalid(asked.stdout.strip(), param="options")
    if asked.returncode != 0:
        log.info("options.unchecked", engine=engine, status=asked.returncode)


def main() -> int:
    """Checks in this process; the answer is the exit status, and the refusal on standard output."""
    engine = sys.argv[1]
    try:
        _check_here(engine, engine_target(engine)[0], json.load(sys.stdin))
    except Invalid as refusal:
        sys.stdout.write(refusal.message)
        return _WRONG
    return 0


if __name__ == "__main__":
    sys.exit(main())
