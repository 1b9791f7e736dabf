"""Measures how much of an engine is left behind Celery, the broker, PostgreSQL and the gateway.

``openvino`` alone and served by the portal, in turn, on the same prompts to the token, with 16
callers, the best of four rounds: both compute the same, so what is missing is the way. Then the
hop from the engine to its client, and how long a job goes on whose client has hung up.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where queue.py would hide Python's own module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.lib.engines.models import Models
from benchmarks.lib.engines.stage import Stage
from benchmarks.lib.engines.way import Way
from benchmarks.lib.portal import Portal

_ROUNDS: Final = 4
_CALLERS: Final = 16
_WAVES: Final = 4


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        # PostgreSQL runs as another user where this is root.
        Path(home).chmod(0o711)
        models = Models.make(arguments.models or Path(home) / "models")
        figures = measure(Path(home) / "portal", models.gguf)
    for name, value in figures.items():
        print(f"{name:28} {value:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(data_dir: Path, artefact: Path, tokens: int = 48) -> dict[str, float]:
    """The figures of an artefact, in an installation that is made for it.

    Args:
        data_dir: the installation's folder; made anew, removed at the end.
        tokens: so many an answer.
    """
    with Portal(data_dir) as portal:
        way = Way(portal, artefact)
        figures = _rates(way, artefact, tokens)
        figures |= {"hop_p50_ms": way.hop_p50_ms(), "cancel_ms": way.cancel_ms()}
    return {name: round(value, 4) for name, value in figures.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep converted models there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


def _rates(way: Way, artefact: Path, tokens: int) -> dict[str, float]:
    """Tokens a second, alone and served, and their ratio."""
    bare = served = 0.0
    plan = {"concurrency": _CALLERS, "requests": _CALLERS * _WAVES, "tokens": tokens}
    stage = Stage("openvino", str(artefact), artefact)
    try:
        for _ in range(_ROUNDS):
            bare = max(bare, stage.rate(**plan))
            served = max(served, way.rate(**plan))
    finally:
        stage.close()
    return {
        "bare_tokens_per_s_c16": bare,
        "served_tokens_per_s_c16": served,
        "celery_vs_bare_c16": served / bare,
    }


if __name__ == "__main__":
    main()
