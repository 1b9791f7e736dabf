"""The benchmarks run, and what they leave agrees; at this size their figures mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lib.portal import ROOT
from tests.benchmarks.test_figures import KEYS as GATEWAY_KEYS

KEYS = {
    "gateway": GATEWAY_KEYS,
    "queue": {
        "fairness_3_to_1",
        "first_claim",
        "claim_32_of_1000_ms",
        "claim_32_of_100000_ms",
        "claim_32_of_1000000_ms",
    },
    "retrieval": {
        figure.format(method)
        for method in ("full_text", "semantic", "hybrid")
        for figure in (
            "recall5_{}_en",
            "recall5_{}_zh",
            "held_out_recall5_{}_en",
            "held_out_recall5_{}_zh",
            "{}_p50_ms",
            "{}_p95_ms",
        )
    },
}


@pytest.mark.parametrize("name", KEYS)
def test_benchmark_runs_and_writes_its_figures(name: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    words = [f"benchmarks/{name}.py", "--scale", "0.01", "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=150
    )
    # Books that do not agree are an error, too.
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(figures.read_text())
    assert set(told) == KEYS[name]
    assert all(value > 0 for value in told.values())
