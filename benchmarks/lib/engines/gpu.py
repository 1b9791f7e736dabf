"""Tests torch_batch on an accelerator and measures it there, with random weights of real shapes.

Tokens a second at 1, 16, 64 and 256 requests at once, beside transformers' ``generate`` one by one
on the same model, and beside the limit that reading memory sets: weights once a step and the cache
of every request, at the rate at which this run reads memory. In weights of bfloat16, int8 and fp8.
Without an accelerator nothing is done; ``--smoke`` takes tiny shapes through all of it on a CPU,
but for the tests.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch

from benchmarks.lib.engines.stage import ROOT

_TESTS: Final = (
    "tests/inference/engines/test_torch_batch.py",
    "tests/inference/engines/test_torch_extras.py",
    "tests/inference/engines/test_torch_sampling.py",
    "tests/inference/engines/test_torch_embed.py",
    "tests/inference/quantization/test_fp8.py",
)
_TESTS_OF_SEVERAL: Final = ("tests/inference/engines/test_torch_ranks.py",)
_TARGET: Final = 0.6
_SEQUENTIAL: Final = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked for.

    Args:
        callers: requests at once, in turn.
        prompt_tokens: of each request.
        tokens: of each answer.
        rounds: of which the best counts.
        probe_bytes: of memory that are read to find its rate.
    """

    callers: tuple[int, ...] = (1, 16, 64, 256)
    prompt_tokens: int = 32
    tokens: int = 128
    rounds: int = 2
    probe_bytes: int = 1 << 32


SMOKE_PLAN: Final = Plan((1, 16), 8, 4, 1, 1 << 24)


@dataclass(frozen=True, slots=True)
class Row:
    """One shape in one precision; rates in tokens a second, by requests at once.

    Args:
        limits: what reading memory allows.
        sequential: transformers' ``generate``, one request after another.
    """

    name: str
    sequential: float
    rates: Mapping[int, float]
    limits: Mapping[int, float]

    def figures(self) -> dict[str, float]:
        told = {f"{self.name}_sequential": self.sequential}
        for callers, rate in self.rates.items():
            told |= {
                f"{self.name}_c{callers}": rate,
                f"{self.name}_c{callers}_vs_limit": rate / self.limits[callers],
                f"{self.name}_c{callers}_vs_sequential": rate / self.sequential,
            }
        return told


def main() -> None:
    arguments = _arguments()
    if not arguments.smoke and not torch.cuda.is_available():
        print(
            "No accelerator is at hand (torch sees none), so that nothing was tested or measured."
        )
        return
    device = torch.device("cpu" if arguments.smoke else "cuda")
    status = 0 if arguments.smoke else _test()
    plan = SMOKE_PLAN if arguments.smoke else Plan()
    bandwidth = read_rate(device, plan.probe_bytes)
    rows = _measure(device, plan, bandwidth, smoke=arguments.smoke)
    table = _table(_name(device), bandwidth, rows)
    print(table)
    if arguments.json:
        figures = {"read_gb_per_s": bandwidth / 1e9}
        for row in rows:
            figures |= row.figures()
        rounded = {name: float(f"{value:.5g}") for name, value in figures.items()}
        arguments.json.write_text(json.dumps(rounded, indent=2) + "\n")
        arguments.json.with_suffix(".txt").write_text(table + "\n")
    sys.exit(status)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, on a CPU")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the figures to FILE and the table beside it: benchmarks/results/gpu.json",
    )
    return parser.parse_args()


def _test() -> int:
    """The engine's own tests, on the accelerator; what fails is shown, and the rest goes on.

    Returns:
        Their exit status.
    """
    several = _TESTS_OF_SEVERAL if torch.cuda.device_count() > 1 else ()
    words = [sys.executable, "-m", "pytest", "-q", *_TESTS, *several]
    environment = {**os.environ, "FREEHOLD_TEST_DEVICE": "cuda"}
    status = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
    print(f"The tests on the accelerator {'failed' if status else 'passed'}.\n", flush=True)
    return status


def read_rate(device: torch.device, size: int) -> float:
    """Bytes a second that a device reads, the best of five sums of ``size`` bytes."""
    numbers = torch.ones(size // 4, device=device)
    best = 0.0
    for _ in range(5):
        _wait(device)
        begun = time.perf_counter()
        numbers.sum()
        _wait(device)
        best = max(best, size / (time.perf_counter() - begun))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _measure(device: torch.device, plan: Plan, bandwidth: float, *, smoke: bool) -> list[Row]:
    from benchmarks.lib.engines.shapes import FULL, PRECISIONS, SMOKE

    rows = []
    with tempfile.TemporaryDirectory(prefix="freehold-gpu-") as home:
        artefact = _artefact(Path(home), plan)
        for shape in SMOKE if smoke else FULL:
            for precision in PRECISIONS:
                name = f"{shape.name}_{precision}"
                print(f"{name} ...", file=sys.stderr, flush=True)
                try:
                    rows.append(_row(name, shape, precision, artefact, device, plan, bandwidth))
                except torch.OutOfMemoryError:
                    print(f"{name} does not fit into the accelerator's memory.", flush=True)
                gc.collect()
                torch.cuda.empty_cache()
    return rows


def _artefact(home: Path, plan: Plan) -> Path:
    """A folder that the engine opens; its weights are given otherwise."""
    import msgspec

    from inference.artefacts import import_byte_level

    made = import_byte_level(home, context_length=plan.prompt_tokens + plan.tokens)
    manifest = msgspec.structs.replace(made, format="safetensors", eos_token_ids=())
    (home / made.id / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return home / made.id


def _row(
    name: str,
    shape: Any,
    precision: str,
    artefact: Path,
    device: torch.device,
    plan: Plan,
    bandwidth: float,
) -> Row:
    from benchmarks.lib.engines.shapes import build, bytes_of_step
    from inference.engines.torch_batch import engine

    model = build(shape, precision, device)
    prompts = _prompts(max(plan.callers), plan.prompt_tokens)
    sequential = _sequential(model, prompts[:_SEQUENTIAL], plan, device)
    rates: dict[int, float] = {}
    limits: dict[int, float] = {}
    with mock.patch.object(engine, "load_model", return_value=model):
        served, token_bytes = _serve(artefact, device, plan)
    try:
        for callers in plan.callers:
            rates[callers] = max(
                _rate(served, prompts[:callers], plan.tokens) for _ in range(plan.rounds)
            )
            context = callers * token_bytes * (plan.prompt_tokens + plan.tokens / 2)
            limits[callers] = callers * bandwidth / (bytes_of_step(model, callers) + context)
    finally:
        served.close()
    return Row(name, sequential, rates, limits)


def _prompts(count: int, tokens: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(2, 250, (count, tokens), generator=generator).tolist()


def _sequential(
    model: Any, prompts: Sequence[list[int]], plan: Plan, device: torch.device
) -> float:
    def generate(prompt: list[int], tokens: int) -> None:
        ids = torch.tensor([prompt], device=device)
        options = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": tokens}
        with torch.inference_mode():
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        _wait(device)

    generate(prompts[0], 2)
    begun = time.perf_counter()
    for prompt in prompts:
        generate(prompt, plan.tokens)
    return len(prompts) * plan.tokens / (time.perf_counter() - begun)


def _serve(artefact: Path, device: torch.device, plan: Plan) -> tuple[Any, int]:
    """The engine in this process, and the bytes of a token in its cache."""
    from benchmarks.lib.engines.contenders import OurEngine
    from inference.engines.torch_batch.engine import TorchBatchEngine

    made: list[TorchBatchEngine] = []

    def make(emit: Any) -> TorchBatchEngine:
        made.append(
            TorchBatchEngine(
                artefact_dir=artefact,
                context_length=plan.prompt_tokens + plan.tokens,
                options={
                    "device": device.type,
                    "slots": max(plan.callers),
                    "prefix_cache_mb": 0,
                },
                emit=emit,
            )
        )
        return made[0]

    served = OurEngine(make)
    runner = made[0]._runner
    assert runner is not None
    return served, runner.token_bytes


def _rate(served: Any, prompts: Sequence[list[int]], tokens: int) -> float:
    served.run(prompts, 2, len(prompts))
    begun = time.perf_counter()
    made = served.run(prompts, tokens, len(prompts))
    return float(made / (time.perf_counter() - begun))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _table(device: str, bandwidth: float, rows: Sequence[Row]) -> str:
    callers = list(rows[0].rates) if rows else []
    heads = "".join(f"{f'C{c}':>10}{'of limit':>10}" for c in callers)
    lines = [
        f"{device}, which reads memory at {bandwidth / 1e9:,.0f} GB/s; tokens a second",
        f"{'':26}{'sequential':>12}{heads}",
    ]
    for row in rows:
        told = "".join(
            f"{row.rates[c]:10,.0f}{row.rates[c] / row.limits[c]:10.3f}" for c in callers
        )
        lines.append(f"{row.name:26}{row.sequential:12,.1f}{told}")
    reached = [max(row.rates[c] / row.limits[c] for c in callers) for row in rows]
    count = sum(share >= _TARGET for share in reached)
    lines.append(
        f"{count} of {len(rows)} reach {_TARGET} of the limit, with some number of requests."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
