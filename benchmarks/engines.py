"""Measures engines: tokens a second of ways to generate with one model, at 1, 8, 16 and 32 at once.

transformers' ``generate`` one by one and in static batches, its continuous batching, our
``torch_batch`` with the same weights and with int8, OpenVINO alone, our ``openvino``, and
llama.cpp's server where ``--llamacpp`` names a folder with its programs. The same prompts,
alternating, the best of three rounds. The memory's read bandwidth, measured in the same run, bounds
what one sequence can reach. Then what ``engine_way.py`` measures: how much of an engine is left
behind the portal.

Each computes as it does if it is left to choose: transformers in the weights' own bfloat16,
``torch_batch`` in float32 where a CPU emulates bfloat16. The ratios are of these; rows with fp32
say what transformers reaches with the same numbers. ``torch_step.py`` shows what bounds a step.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where queue.py would hide Python's own module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.engine_way import measure as measure_way
from benchmarks.lib.engines.bandwidth import read_bandwidth
from benchmarks.lib.engines.llamacpp import LlamaCpp
from benchmarks.lib.engines.models import Models
from benchmarks.lib.engines.stage import Stage

_CALLERS: Final = (1, 8, 16, 32)
_ROUNDS: Final = 3
_TOKENS: Final = 48
_LEAST_TOKENS: Final = 8
_WAVES: Final = 2


@dataclass
class Rates:
    """Tokens a second by contender and callers; the best of the rounds."""

    best: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, name: str, callers: int, rate: float) -> None:
        row = self.best.setdefault(name, {})
        row[callers] = max(row.get(callers, 0.0), rate)

    def ratio(self, one: str, other: str, callers: int) -> float:
        return self.best[one][callers] / self.best[other][callers]


def main() -> None:
    arguments = _arguments()
    tokens = max(_LEAST_TOKENS, int(_TOKENS * min(1.0, arguments.scale)))
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        # PostgreSQL runs as another user where this is root.
        Path(home).chmod(0o711)
        models = Models.make(arguments.models or Path(home) / "models")
        bandwidth = read_bandwidth()
        rates = _compare(models, arguments.llamacpp, tokens)
        figures = _figures(rates) | measure_way(Path(home) / "portal", models.gguf, tokens)
    _print(rates, models, bandwidth, figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--llamacpp", type=Path, metavar="FOLDER", help="with llama-server and llama-quantize"
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep converted models there")
    parser.add_argument("--scale", type=float, default=1.0, help="0.2 for a fifth of the tokens")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


def _compare(models: Models, llamacpp: Path | None, tokens: int) -> Rates:
    """Every contender in turn, so that all meet the same neighbours."""
    rates = Rates()
    with ExitStack() as open_stages:
        places: dict[str, str] = {name: str(at) for name, at in models.places().items()}
        if llamacpp is not None:
            server = open_stages.enter_context(LlamaCpp(llamacpp, models.gguf / "model.gguf"))
            places["llama.cpp Q8_0"] = server.url
        for number in range(_ROUNDS):
            for name, where in places.items():
                print(f"round {number + 1}/{_ROUNDS}: {name}", file=sys.stderr, flush=True)
                _measure(rates, name, where, models, tokens)
    return rates


def _measure(rates: Rates, name: str, where: str, models: Models, tokens: int) -> None:
    # One process at a time: several models at once would share the cores' caches.
    stage = Stage(name, where, models.gguf)
    try:
        stage.rate(concurrency=1, requests=1, tokens=_LEAST_TOKENS)
        for callers in _CALLERS:
            plan = {"concurrency": callers, "requests": _WAVES * callers, "tokens": tokens}
            rates.add(name, callers, stage.rate(**plan))
    finally:
        stage.close()


def _figures(rates: Rates) -> dict[str, float]:
    told = {
        "torch_vs_sequential_c16": rates.ratio("torch_batch", "sequential", 16),
        "torch_vs_sequential_c32": rates.ratio("torch_batch", "sequential", 32),
        "torch_vs_hf_cb_c16": rates.ratio("torch_batch", "transformers CB", 16),
        "openvino_vs_raw_c16": rates.ratio("openvino", "raw OpenVINO", 16),
        "openvino_vs_sequential_c32": rates.ratio("openvino", "sequential", 32),
    }
    if "llama.cpp Q8_0" in rates.best:
        told["torch_int8_vs_llamacpp_c1"] = rates.ratio("torch_batch int8", "llama.cpp Q8_0", 1)
    return {name: round(value, 4) for name, value in told.items()}


def _print(rates: Rates, models: Models, bandwidth: float, figures: Mapping[str, float]) -> None:
    print(f"{'tokens a second':22}" + "".join(f"{f'C{c}':>9}" for c in _CALLERS))
    for name, row in rates.best.items():
        print(f"{name:22}" + "".join(f"{row[callers]:9.1f}" for callers in _CALLERS))
    print(f"\nmemory is read at {bandwidth / 1e9:.1f} GB/s, which lets one sequence reach")
    for name, size in models.sizes().items():
        print(f"  {bandwidth / size:8.0f} tokens/s with {name} ({size / 1e6:.0f} MB)")
    print()
    for name, value in figures.items():
        print(f"{name:28} {value:.3f}")


if __name__ == "__main__":
    main()
