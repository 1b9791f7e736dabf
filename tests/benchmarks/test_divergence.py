"""How far greedy answers are apart: counting, and the whole measurement on a tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lib.engines.answers import divergence
from benchmarks.lib.portal import ROOT
from tests.inference.engines.tiny_models import save_tiny

A, B, C = [b"a", b"b", b"c", b"d"], [b"a", b"x", b"c", b"y"], [b"z", b"b", b"c", b"d"]


def test_divergence_counts_answers_and_finds_the_first_difference() -> None:
    found = divergence([A, A, A, A], [A, B, C, A])
    assert (found.share, found.firsts, found.median_first) == (0.5, (1, 0), 0.5)
    # Four and four tokens alike, one alike and one not, one not.
    assert found.per_token == pytest.approx(2 / 11)


def test_divergence_of_the_same_answers_is_none() -> None:
    found = divergence([A, B], [A, B])
    assert (found.share, found.firsts, found.median_first, found.per_token) == (0, (), 4, 0)


def test_benchmark_finds_no_difference_in_fp32(tmp_path: Path) -> None:
    artefact = save_tiny(tmp_path, "llama")
    file = tmp_path / "figures.json"
    words = ["--prompts", "16", "--tokens", "8", "--artefact", str(artefact), "--json", str(file)]
    done = subprocess.run(
        [sys.executable, "benchmarks/divergence.py", *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())
    assert figures["batch_fp32_c16_vs_fp32_share"] == 0
    assert figures["batch_fp32_c16_vs_fp32_first"] == 8
    for at_once in (1, 4, 16):
        for beside in ("bf16", "fp32"):
            assert 0 <= figures[f"batch_bf16_c{at_once}_vs_{beside}_share"] <= 1
    assert "16 answers of 8 tokens" in done.stdout
