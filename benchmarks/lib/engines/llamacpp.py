"""llama.cpp's server, started with the shipped model in eight bits."""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

import httpx

from benchmarks.lib.portal import free_port

_READY_S: Final = 60.0
_SLOTS: Final = 32
_CONTEXT: Final = 256 * _SLOTS


class LlamaCpp:
    """A context manager: quantizes the model anew, serves it on the loopback, and ends it.

    Args:
        programs: the folder with ``llama-server`` and ``llama-quantize``.
        model: a GGUF file.
    """

    def __init__(self, programs: Path, model: Path) -> None:
        self._programs = programs
        self._model = model
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="freehold-llamacpp-")
        eight = Path(self._folder.name) / "model-q8_0.gguf"
        quantize = [self._programs / "llama-quantize", "--allow-requantize", self._model, eight]
        subprocess.run([*quantize, "q8_0"], check=True, capture_output=True)
        self._process = subprocess.Popen(
            [
                *(self._programs / "llama-server", "-m", eight, "--host", "127.0.0.1"),
                *("--port", str(self._port), "-np", str(_SLOTS), "-c", str(_CONTEXT)),
                *("-t", str(os.cpu_count()), "--no-webui"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._await_health()
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def _await_health(self) -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        self._process.kill()
        raise SystemExit("llama-server did not become ready.")
