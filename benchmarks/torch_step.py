"""Where a step of ``torch_batch`` spends its time on this CPU, and what bounds it.

For the shipped model in float32, bfloat16 and eight bits: the products of its linear layers alone,
which bound every engine that multiplies with torch; whole steps of 1, 8, 16 and 32 requests; and
what ``engines.py`` can reach at most, with the products of its prompts beside those of its
answers. Then the shares of a step by torch's profiler, under which what is small looks larger.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where queue.py would hide Python's own module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# Before torch is there: threads that spin while they wait would take the cores from each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.lib.engines.models import Models
from benchmarks.lib.engines.prompts import PROMPT_TOKENS
from inference.engines.base import Sampling
from inference.engines.torch_batch.loading import load_model
from inference.engines.torch_batch.options import Dtype
from inference.engines.torch_batch.runner import ModelRunner, StepInputs
from inference.engines.torch_batch.sampling import Draws, SamplingPlan
from inference.quantization.modules import QuantizedLinear

_BATCHES: Final = (1, 8, 16, 32)
_PIECE: Final = 256  # prompt tokens that are computed together
_ANSWER_TOKENS: Final = 48
_POSITION: Final = PROMPT_TOKENS + _ANSWER_TOKENS // 2
_CONTEXT: Final = 128
_PARTS: Final = {
    "products": ("aten::mm", "aten::addmm", "aten::_weight_int4pack_mm_for_cpu"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu",),
    "cache": ("aten::_index_put_impl_",),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of the products and of a whole step by number of requests; shares of its parts."""

    products: dict[int, float]
    steps: dict[int, float]
    shares: dict[int, dict[str, float]]

    def bound(self, batch: int) -> float:
        """Most tokens a second of answers, with their prompts."""
        answer = self.products[batch] / batch * _ANSWER_TOKENS
        return _ANSWER_TOKENS / (answer + self.products[_PIECE] / _PIECE * PROMPT_TOKENS)

    def figures(self) -> dict[str, Any]:
        """What ``--json`` keeps."""
        return {
            str(batch): {
                "products_tokens_s": round(batch / self.products[batch], 1),
                "step_tokens_s": round(batch / self.steps[batch], 1),
                "bound_tokens_s": round(self.bound(batch), 1),
                "shares": {name: round(part, 4) for name, part in self.shares[batch].items()},
            }
            for batch in self.steps
        }


class _Bench:
    """A model with its cache, as the engine has it."""

    def __init__(self, folder: Path, dtype: Dtype, rounds: int) -> None:
        self._rounds = rounds
        self._model = load_model(folder, device=torch.device("cpu"), dtype=dtype)
        self._runner = ModelRunner(
            self._model,
            slots=max(_BATCHES),
            context_length=_CONTEXT,
            cache_bytes=None,
            reserved_bytes=0,
        )
        self._runner.reshape(_CONTEXT)

    def measure(self) -> Measured:
        return Measured(
            {batch: self._best(self._products(batch)) for batch in (*_BATCHES, _PIECE)},
            {batch: self._best(self._step(batch)) for batch in _BATCHES},
            {batch: self._shares(self._step(batch)) for batch in _BATCHES},
        )

    @torch.inference_mode()
    def _best(self, act: Callable[[], object]) -> float:
        act()
        best = float("inf")
        for _ in range(self._rounds):
            begun = time.perf_counter()
            act()
            best = min(best, time.perf_counter() - begun)
        return best

    def _products(self, rows: int) -> Callable[[], None]:
        dtype = next(p.dtype for p in self._model.parameters() if p.is_floating_point())
        layers = [m for m in self._model.modules() if isinstance(m, nn.Linear | QuantizedLinear)]
        inputs = {n: torch.randn(rows, 1, n, dtype=dtype) for n in {m.in_features for m in layers}}
        # Of a prompt only what follows its last token is asked for.
        layers = layers[:-1] if rows == _PIECE else layers

        def act() -> None:
            for layer in layers:
                layer(inputs[layer.in_features])

        return act

    def _step(self, batch: int) -> Callable[[], None]:
        inputs = StepInputs(0, np.full((batch, 1), 5), np.full((batch, 1), _POSITION))
        plan = SamplingPlan(
            [Sampling(max_tokens=_ANSWER_TOKENS, temperature=0.0)] * batch, (), self._runner.device
        )
        draws = [Draws(1)] * batch

        def act() -> None:
            logits = self._runner.forward(inputs)
            with record_function("sampling"):
                plan.choose(logits, generated=[0] * batch, draws=draws, masks=[None] * batch)

        return act

    @torch.inference_mode()
    def _shares(self, step: Callable[[], None]) -> dict[str, float]:
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            begun = time.perf_counter()
            for _ in range(self._rounds):
                step()
            whole = (time.perf_counter() - begun) * 1e6
        rows = recorded.key_averages()
        sampling = sum(row.cpu_time_total for row in rows if row.key == "sampling")
        inside = sum(row.self_cpu_time_total for row in rows if row.key.startswith("aten::"))
        found = {
            part: sum(row.self_cpu_time_total for row in rows if row.key in names) / whole
            for part, names in _PARTS.items()
        }
        found["sampling"] = sampling / whole
        found["Python"] = max(0.0, 1 - inside / whole)
        return found | {"other": max(0.0, 1 - sum(found.values()))}


def main() -> None:
    arguments = _arguments()
    with _folder(arguments.models) as folder:
        models = Models.make(folder)
        plans: dict[str, tuple[Path, Dtype]] = {
            "float32": (models.bfloat16, "float32"),
            "bfloat16": (models.bfloat16, "bfloat16"),
            "int8": (models.int8, "bfloat16"),
        }
        found: dict[str, Measured] = {}
        for name, (at, dtype) in plans.items():
            print(f"measuring {name}", file=sys.stderr, flush=True)
            found[name] = _Bench(at, dtype, arguments.rounds).measure()
    _print(found)
    if arguments.json:
        figures = {name: measured.figures() for name, measured in found.items()}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as made:
        yield Path(made)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep converted models there")
    parser.add_argument("--rounds", type=int, default=10, help="of which the best counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


def _print(found: dict[str, Measured]) -> None:
    able = [n for n in ("amx_bf16", "avx512_bf16", "bf16") if torch.cpu.get_capabilities().get(n)]
    print(f"{torch.get_num_threads()} threads; bfloat16 by {', '.join(able) or 'emulation'}\n")
    head = "".join(f"{f'B{batch}':>8}" for batch in _BATCHES)
    for title, of in (
        ("tokens/s, products alone", lambda m, b: b / m.products[b]),
        ("tokens/s, whole steps", lambda m, b: b / m.steps[b]),
        ("tokens/s, at most, with prompts", lambda m, b: m.bound(b)),
    ):
        print(f"{title:34}{head}")
        for name, measured in found.items():
            print(f"  {name:32}" + "".join(f"{of(measured, b):8.0f}" for b in _BATCHES))
    for name, measured in found.items():
        print(f"{f'share of a step, {name}':34}{head}")
        for part in measured.shares[1]:
            row = "".join(f"{measured.shares[b][part]:8.1%}" for b in _BATCHES)
            print(f"  {part:32}{row}")


if __name__ == "__main__":
    main()
