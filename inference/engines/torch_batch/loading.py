"""From an artefact folder to a model in memory."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.distributed import DistributedConfig
from transformers.utils import logging

from inference.engines.torch_batch.options import Device, Dtype
from inference.quantization.loading import is_packed, load_quantized
from portal.core.errors import Invalid

# Their frequencies depend on the longest request of a batch, so that requests are not independent.
_BATCH_DEPENDENT_ROPE = frozenset(("dynamic", "longrope"))
_BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")  # of x86-64, and of ARM


def pick_device(device: Device) -> torch.device:
    """The device that an option means.

    Raises:
        Invalid: an accelerator is asked for and torch sees none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise Invalid(
            "Torch sees no accelerator; install a build of torch for it, or set device to cpu.",
            param="options",
        )
    return torch.device("cuda" if available and device != "cpu" else "cpu")


def load_model(
    artefact_dir: Path, *, device: torch.device, dtype: Dtype, ranks: int = 1
) -> nn.Module:
    """The causal language model of an artefact, ready for inference on ``device``.

    Nothing is read from outside the folder, and none of its code is run. With several ranks it is
    this rank's part, by the model's own plan; the process group must have been formed.

    Raises:
        Invalid: the folder holds no weights that can be loaded.
    """
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(artefact_dir, local_files_only=True)
        _check_rope(config)
        packed = is_packed(artefact_dir)
        wanted = pick_dtype(dtype, config.dtype, device, packed=packed)
        if packed:
            return load_quantized(artefact_dir, device=device, dtype=wanted)
        model = AutoModelForCausalLM.from_pretrained(
            artefact_dir,
            config=config,
            dtype=wanted,
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            distributed_config=DistributedConfig(tp_size=ranks) if ranks > 1 else None,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as fault:
        raise Invalid(f"The model in {artefact_dir} cannot be loaded: {fault}") from fault
    if ranks > 1:
        return model.eval()
    if device.type == "cpu" and wanted == torch.float32:
        _store_by_columns(model)
    return model.to(device).eval()


def _store_by_columns(model: nn.Module) -> None:
    """Lay the weights of linear layers out as a CPU's products of few rows read them faster.

    Steps of 4 to 64 requests take a sixth to a quarter less time so. A weight that an embedding
    shares stays shared; it gathers its rows hardly slower.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()


def _check_rope(config: object) -> None:
    parameters = getattr(config, "rope_parameters", None) or {}
    kind = parameters.get("rope_type", "default")
    if kind in _BATCH_DEPENDENT_ROPE:
        raise Invalid(
            f"This engine can't serve rotary embeddings of type {kind!r}: they depend on the "
            "other requests of a batch."
        )


def pick_dtype(
    asked: Dtype, own: torch.dtype | None, device: torch.device, *, packed: bool
) -> torch.dtype:
    """The number format that an option means.

    Args:
        own: the artefact's, if it says.
        packed: whether its weights are of 8 or 4 bits.
    """
    if asked != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[asked]
    if device.type != "cpu":
        return own or torch.bfloat16
    # Packed weights have a kernel in bfloat16 alone.
    short = own in (torch.bfloat16, torch.float16)
    return torch.bfloat16 if packed or (short and _multiplies_bfloat16()) else torch.float32


def _multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it; where it is emulated, 32 bits are quicker."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in _BFLOAT16_INSTRUCTIONS)
