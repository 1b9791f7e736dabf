"""The measurement on an accelerator runs whole, on tiny shapes and a CPU; figures mean nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.lib.portal import ROOT

MODELS = ("tiny_qwen2", "tiny_deepseek_v3")
KINDS = ("", "_vs_limit", "_vs_sequential")


def run(*options: str) -> str:
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, "-m", "benchmarks.lib.engines.gpu", *options]
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=170
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_benchmark_measures_each_shape_in_each_precision(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    said = run("--smoke", "--json", str(file))
    figures = json.loads(file.read_text())
    expected = {"read_gb_per_s"}
    for model in MODELS:
        for precision in ("bf16", "int8", "fp8"):
            name = f"{model}_{precision}"
            expected.add(f"{name}_sequential")
            expected |= {f"{name}_c{count}{kind}" for count in (1, 16) for kind in KINDS}
            assert f"\n{name} " in said
    assert set(figures) == expected
    assert all(value > 0 for value in figures.values())
    assert (tmp_path / "gpu.txt").read_text() == said


def test_benchmark_without_an_accelerator_says_so_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    said = run("--json", str(file))
    assert said.splitlines() == [
        "No accelerator is at hand (torch sees none), so that nothing was tested or measured."
    ]
    assert not file.exists()
