"""vLLM as the worker's child: started, looked after and ended with it, on loopback alone.

vLLM pins its own torch, so it lives in an environment of its own; all that is needed of it is its
command. It is spoken to as any other server is (``openai_http``), with a key made for this run.
"""

import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
import structlog

from inference.artefacts import load_manifest
from inference.engines import guard
from inference.engines.base import (
    Emit,
    EngineClosed,
    EngineOptions,
    EngineStats,
    GenerationRequest,
)
from inference.engines.choice import find_vllm
from inference.engines.openai_http import OpenAIEngine
from inference.engines.options import parse_options
from portal.core.errors import Invalid, Unavailable

log = structlog.get_logger(__name__)

_MODEL: Final = "served"
_PROGRESS = re.compile(r"(Loading|Capturing|Compiling)[^\r\n]*?(\d{1,3})%")
_MOST_LINE_CHARS = 300
# What vLLM and the drivers under it read. The worker's own secrets are not theirs to see.
_PASSED: Final = re.compile(
    r"^(PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|CC|CXX|XDG_\w+|CUDA_\w+|NVIDIA_\w+"
    r"|NCCL_\w+|HIP_\w+|ROCR?_\w+|HSA_\w+|AMD_\w+|OMP_\w+|TORCH\w*|TRITON_\w+|VLLM_\w+|HF_HOME)$"
)
_OFFLINE: Final = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
# These are the engine's own to set.
_RESERVED: Final = ("--host", "--port", "--api-key", "--served-model-name", "--uds", "--model")


class VllmOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of vLLM; those of times are in seconds, as every adapter's.

    Args:
        executable: the ``vllm`` command; empty looks beside this interpreter and on the path.
        concurrency: requests that run at once (``--max-num-seqs``).
        tensor_parallel: GPUs over which the model is split.
        gpu_memory: share of the GPU's memory that vLLM takes.
        args: more arguments of ``vllm serve``.
        ready_seconds: how long loading may take.
        first_token_seconds, between_tokens_seconds, poll_seconds: see ``RemoteOptions``.
        log_file: where vLLM's own output goes; empty drops it, for it may hold prompts.
    """

    executable: str = ""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    tensor_parallel: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    gpu_memory: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    args: tuple[str, ...] = ()
    ready_seconds: Annotated[float, msgspec.Meta(gt=0)] = 1800.0
    first_token_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    between_tokens_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    poll_seconds: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    log_file: str = ""


class VllmEngine:
    """Serves an artefact with safetensors through a vLLM of its own; implements ``Engine``."""

    def __init__(
        self,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
    ) -> None:
        self._options = parse_options(VllmOptions, options, engine="vllm")
        taken = [a for a in self._options.args if a.split("=")[0] in _RESERVED]
        if taken:
            raise Invalid(f"vLLM's {taken[0]} is not for options to set.", param="options")
        self._artefact_dir = artefact_dir.resolve()
        self._context_length = context_length
        self._emit = emit
        self._key = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._closing = False
        self._engine: OpenAIEngine | None = None
        self._child: _Child | None = None

    def load(self) -> None:
        """See ``Engine.load``."""
        with self._lock:
            if self._child is not None or self._closing:
                raise EngineClosed("This engine was loaded before; make a new one.")
            load_manifest(self._artefact_dir)
            port = _free_port()
            self._engine = self._adapter(port)
            self._child = _Child(
                self._command(port), self._key, self._options.log_file, on_death=self._died
            )
        try:
            self._engine.load()
        except BaseException:
            self.close()
            raise
        self._child.loaded()

    def submit(self, request: GenerationRequest) -> None:
        """See ``Engine.submit``."""
        if self._engine is None:
            raise EngineClosed("The engine accepts no requests now.")
        self._engine.submit(request)

    def cancel(self, request_id: str) -> None:
        """See ``Engine.cancel``."""
        if self._engine is not None:
            self._engine.cancel(request_id)

    def drain(self, timeout: float | None = None) -> bool:
        """See ``Engine.drain``."""
        return self._engine is None or self._engine.drain(timeout)

    def stats(self) -> EngineStats:
        """See ``Engine.stats``."""
        if self._engine is None:
            return EngineStats(self._options.concurrency, 0, 0, 0)
        return self._engine.stats()

    def close(self) -> None:
        """See ``Engine.close``; vLLM is asked to end, and killed if it doesn't."""
        with self._lock:
            self._closing = True
        if self._engine is not None:
            self._engine.close()
        if self._child is not None:
            self._child.end()

    def _died(self, reason: str) -> None:
        if not self._closing and self._engine is not None:
            log.error("vllm.ended")
            self._engine.fail(reason)

    def _adapter(self, port: int) -> OpenAIEngine:
        options = self._options
        return OpenAIEngine(
            artefact_dir=self._artefact_dir,
            context_length=self._context_length,
            options={
                "url": f"http://127.0.0.1:{port}",
                "family": "vllm",
                "model": _MODEL,
                "concurrency": options.concurrency,
                "ready_seconds": options.ready_seconds,
                "first_token_seconds": options.first_token_seconds,
                "between_tokens_seconds": options.between_tokens_seconds,
                "poll_seconds": options.poll_seconds,
            },
            emit=self._emit,
            key=self._key,
        )

    def _command(self, port: int) -> list[str]:
        options = self._options
        executable = Path(options.executable) if options.executable else find_vllm()
        if executable is None or not os.access(executable, os.X_OK):
            raise Invalid(
                "There is no vllm command; install vLLM into an environment of its own and name"
                " its command in the option executable.",
                param="options",
            )
        return [
            str(executable),
            "serve",
            str(self._artefact_dir),
            "--host=127.0.0.1",
            f"--port={port}",
            f"--served-model-name={_MODEL}",
            f"--max-model-len={self._context_length}",
            f"--max-num-seqs={options.concurrency}",
            f"--tensor-parallel-size={options.tensor_parallel}",
            f"--gpu-memory-utilization={options.gpu_memory}",
            *options.args,
        ]


class _Child:
    """The process: its guard, its output, its end."""

    def __init__(
        self, command: list[str], key: str, log_file: str, *, on_death: Callable[[str], None]
    ) -> None:
        self._on_death = on_death
        self._loading = True
        self._lines: deque[str] = deque(maxlen=20)
        theirs, self._ours = os.pipe()
        try:
            # Closed by the thread that reads the output.
            self._log = Path(log_file).open("ab") if log_file else None  # noqa: SIM115
            self._process = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, str(theirs), *command],
                pass_fds=[theirs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # The key is no argument: those can be read by every process of the machine.
                env=_environment() | {"VLLM_API_KEY": key},
            )
        except OSError as fault:
            os.close(self._ours)
            raise Unavailable(f"vLLM could not be started: {fault.strerror}.") from None
        finally:
            os.close(theirs)
        self._reader = threading.Thread(target=self._read, name="vllm-output", daemon=True)
        self._reader.start()

    def loaded(self) -> None:
        """Its output is not looked at any more: it may hold what people wrote."""
        self._loading = False
        self._lines.clear()

    def end(self) -> None:
        """Ask it to end, and wait until it has."""
        ours, self._ours = self._ours, -1
        if ours >= 0:
            os.close(ours)
        if self._reader is threading.current_thread():
            return
        try:
            self._process.wait(guard.GRACE_SECONDS + 2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(guard.GRACE_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        shown = ""
        for raw in self._process.stdout:
            if self._log is not None:
                self._log.write(raw)
                self._log.flush()
            if not self._loading:
                continue
            line = raw.decode("utf-8", "replace").strip()[-_MOST_LINE_CHARS:]
            if line:
                self._lines.append(line)
            found = _PROGRESS.search(line)
            if found is not None and found.group(2) != shown:
                shown = found.group(2)
                log.info("vllm.loading", step=found.group(1).lower(), percent=int(shown))
        self._process.stdout.close()
        if self._log is not None:
            self._log.close()
        status = self._process.wait()
        last = f": {self._lines[-1]}" if self._loading and self._lines else ""
        self._on_death(f"vLLM's process ended with status {status}{last}")


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if _PASSED.match(k)} | _OFFLINE


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
