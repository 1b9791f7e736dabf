"""Loads an artefact with packed weights into a model that computes with them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.artefacts import verify
from inference.quantization.description import DESCRIPTION, Description, decode_description
from inference.quantization.fp8 import Fp8Weight
from inference.quantization.modules import PackedWeight, QuantizedEmbedding
from inference.quantization.packing import Packed
from inference.quantization.published import load_published, publishers_format
from inference.quantization.shards import read_tensors
from inference.quantization.skeleton import build_skeleton, finish, place, replace_modules
from portal.core.errors import NotFound

_PARTS = frozenset(Packed.__slots__)


def load_quantized(
    artefact_dir: Path, *, device: str | torch.device, dtype: torch.dtype
) -> nn.Module:
    """The model of an artefact folder with packed weights, ready to compute: see ``is_packed``.

    Tensors go from the file to the device as they are packed; no dequantized model is ever made.

    Args:
        dtype: of activations, and of the weights that are not packed.

    Raises:
        NotFound: no artefact with packed weights there.
        Invalid: naming the file or the tensor that is damaged, missing or of another model.
    """
    if not is_packed(artefact_dir):
        raise NotFound(f"There are no packed weights in {artefact_dir}.")
    verify(artefact_dir)
    if not (artefact_dir / DESCRIPTION).is_file():
        published, _ = load_published(artefact_dir, device=torch.device(device), dtype=dtype)
        return _ready(published, dtype)
    description = decode_description(artefact_dir / DESCRIPTION)
    return load_packed(artefact_dir, description, device=torch.device(device), dtype=dtype)


def load_packed(
    folder: Path, description: Description, *, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """As ``load_quantized``, of a folder whose files are known to be what was written."""
    model = build_skeleton(folder, dtype)
    parts: dict[str, dict[str, Tensor]] = {}
    plain: list[tuple[str, Tensor]] = []
    weights = set(_weight_names(description))
    for name, tensor in read_tensors(folder, device):
        owner, _, part = name.rpartition(".")
        if owner in weights and part in _PARTS:
            parts.setdefault(owner, {})[part] = tensor
        else:
            plain.append((name, tensor))
    packed = {owner: _packed(found) for owner, found in parts.items() if _is_whole(found)}
    replace_modules(model, description.modules, packed)
    for name, tensor in plain:
        place(model, name, tensor)
    finish(model, device)
    return _ready(model, dtype)


def is_packed(artefact_dir: Path) -> bool:
    """Whether the weights are packed by us, or in a publisher's format, and load with this module.

    Raises:
        Invalid: the configuration cannot be read.
    """
    return (artefact_dir / DESCRIPTION).is_file() or publishers_format(artefact_dir) is not None


def _ready(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    if dtype == torch.bfloat16:
        use_kernels(model)
    return model


def _weight_names(description: Description) -> list[str]:
    names = []
    for module, scheme in description.modules.items():
        parts = ("gate_up_proj", "down_proj") if scheme.kind == "experts" else ("packed",)
        names += [f"{module}.{part}" for part in parts]
    return names


def _is_whole(found: dict[str, Tensor]) -> bool:
    return "values" in found and "scale" in found


def _packed(found: dict[str, Any]) -> Packed:
    return Packed(found["values"], found["scale"], found.get("offset"), found.get("order"))


def use_kernels(model: nn.Module) -> None:
    """Lets each packed weight be multiplied as torch does it best here, in bfloat16."""
    embeddings = [m.packed for m in model.modules() if isinstance(m, QuantizedEmbedding)]
    for module in model.modules():
        if isinstance(module, Fp8Weight):
            module.find_way()
        if isinstance(module, PackedWeight):
            module.use_kernel(keep=any(module is kept for kept in embeddings))
