"""The engine torch_batch with its model split over two ranks: processes on this machine's CPU."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from inference.engines.base import EngineBroken
from inference.engines.process import ProcessEngine
from inference.engines.torch_batch.engine import TorchBatchEngine
from inference.engines.torch_batch.leading import LeadingRunner
from inference.engines.torch_batch.loading import load_model
from inference.engines.torch_batch.ranks import Ranks
from inference.engines.torch_batch.runner import ModelRunner
from portal.core.errors import PortalError
from tests.inference.engines.support import Sink, request
from tests.inference.engines.tiny_models import CONTEXT, save_tiny
from tests.inference.engines.torch_served import (
    MOST_TOKENS,
    OPTIONS,
    PROMPTS,
    Served,
    expected,
)


def split(artefact: Path, **options: Any) -> tuple[Served, "subprocess.Popen[bytes]"]:
    """An engine over two ranks, and the process of the second."""
    served = Served(artefact, tensor_parallel=2, **options)
    runner = served.engine._runner
    assert isinstance(runner, LeadingRunner)
    return served, runner._ranks._ranks[0].process


@pytest.mark.parametrize("family", ["qwen2", "deepseek_v3"])
def test_generate_over_two_ranks_gives_what_one_gives(tmp_path: Path, family: str) -> None:
    artefact = save_tiny(tmp_path, family, eos=())
    drawn = {"temperature": 1.0, "max_tokens": 20, "seed": 11}
    one = Served(artefact)
    alone, whole = one.answer("drawn", PROMPTS[3], **drawn), one.engine.stats()
    one.engine.close()
    served, second = split(artefact, prefix_cache_mb=1)
    # More than there are slots, of lengths that reshape the cache; some leave among others.
    served.start("leaves", PROMPTS[0], max_tokens=400)
    for n in range(len(PROMPTS)):
        served.start(str(n), PROMPTS[n], max_tokens=MOST_TOKENS - n, scope="a")
    served.wait(lambda: served.tokens("2") > 3)
    served.engine.cancel("leaves")
    for n in range(len(PROMPTS)):
        served.done(str(n))
        assert served.bytes_of(str(n)) == expected(family, n)[: MOST_TOKENS - n]
    assert served.done("leaves").reason == "cancelled"
    # What is known of a prompt is known to both ranks.
    assert served.answer("again", PROMPTS[7], scope="a") == expected(family, 7)[:8]
    assert served.answer("drawn", PROMPTS[3], **drawn) == alone
    part = served.engine.stats()
    assert part.memory_bytes < whole.memory_bytes + served.engine._prefixes.used * 1024
    served.engine.close()
    assert served.engine.stats().failure is None
    assert second.returncode == 0
    assert not distributed.is_initialized()


def test_loss_of_a_rank_fails_every_request(tmp_path: Path) -> None:
    served, second = split(save_tiny(tmp_path, "qwen2", eos=()))
    names = [str(n) for n in range(7)]
    for name in names:
        served.start(name, PROMPTS[2], max_tokens=400)
    served.wait(lambda: served.tokens("0") > 0)
    second.kill()
    for name in names:
        assert served.failed(name).code == "engine_failed"
        assert len(served.ends(name)) == 1
    assert "rank 1 ended with status -9" in (served.engine.stats().failure or "")
    with pytest.raises(EngineBroken):
        served.start("late", PROMPTS[2])
    served.engine.close()
    assert not distributed.is_initialized()


class Alone(TorchBatchEngine):
    """Leads a group of which it is all."""

    def _open_runner(self, device: torch.device) -> ModelRunner:
        return LeadingRunner(
            load_model(self._artefact_dir, device=device, dtype="float32"),
            Ranks([], on_loss=self._wake),
            slots=4,
            context_length=CONTEXT,
            cache_bytes=2**20,
        )


def test_step_that_fails_on_one_rank_is_not_repeated_without_the_others(tmp_path: Path) -> None:
    served = Served(save_tiny(tmp_path, "qwen2", eos=()), Alone)
    steps = []

    def fail(module: Any, args: Any) -> None:
        steps.append(module)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    runner = served.engine._runner
    assert runner is not None
    runner._model.register_forward_pre_hook(fail)
    served.start("a", PROMPTS[2])
    served.start("b", PROMPTS[3])
    assert [served.failed(name).code for name in "ab"] == ["engine_failed"] * 2
    assert len(steps) == 1
    assert "out of memory" in (served.engine.stats().failure or "")
    served.engine.close()


def test_loss_of_a_rank_while_nothing_runs_is_told_to_the_owner(tmp_path: Path) -> None:
    sink = Sink()
    engine = ProcessEngine(
        "torch_batch",
        artefact_dir=save_tiny(tmp_path, "qwen2"),
        context_length=CONTEXT,
        options=OPTIONS | {"tensor_parallel": 2},
        emit=sink,
    )
    engine.load()
    assert engine._process is not None
    (second,) = _children(engine._process.pid)
    os.kill(second, signal.SIGKILL)
    with engine._changed:
        assert engine._changed.wait_for(lambda: engine._failure is not None, 60)
    assert "rank 1 ended with status -9" in (engine.stats().failure or "")
    with pytest.raises(EngineBroken):
        engine.submit(request("a"))
    engine.close()
    assert not Path(f"/proc/{second}").exists()


def _children(pid: int) -> list[int]:
    listings = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for listing in listings for child in listing.read_text().split()]


def test_death_of_the_owner_ends_a_rank() -> None:
    program = """
import os, socket, subprocess, sys
ours, theirs = socket.socketpair()
module = "inference.engines.torch_batch.follower"
command = [sys.executable, "-m", module, str(theirs.fileno())]
subprocess.Popen(command, pass_fds=[theirs.fileno()])
os.kill(os.getpid(), 9)
"""
    # The rank inherits the pipe: it is at its end when both processes are gone.
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL, "")


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", start)


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        (
            "llama",
            {"tensor_parallel": 2},
            r"tiny-llama .* over 2 ranks: num_key_value_heads \(1\) .* may be 1\.",
        ),
        (
            "deepseek_v2",
            {"tensor_parallel": 8},
            r"over 8 ranks: num_attention_heads \(4\) can't be divided. .* may be 1, 2, 4\.",
        ),
        (
            "deepseek_v3",
            {"tensor_parallel": 3},
            r"mlp.experts \(16\), mlp.shared_experts.down_proj \(16\) .* may be 1, 2, 4, 8, 16\.",
        ),
        ("qwen2", {"tensor_parallel": 65}, "tensor_parallel"),
    ],
)
def test_split_that_is_not_possible_is_refused_before_any_process_is_started(
    tmp_path: Path, family: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(PortalError, match=words) as refused:
        Served(save_tiny(tmp_path, family), **options)
    assert refused.value.error_status == 400


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "weights of tiny-qwen2 are quantized"),
        ({"model_type": "gpt2"}, r"no plan to split tiny-qwen2 \(gpt2\)"),
    ],
)
def test_split_of_weights_that_can_not_be_split_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    artefact = save_tiny(tmp_path, "qwen2")
    path = artefact / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(PortalError, match=words):
        Served(artefact, tensor_parallel=2)
