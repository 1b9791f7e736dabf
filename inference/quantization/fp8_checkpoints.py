"""Reads checkpoints in fp8: of DeepSeek-V3's kind, compressed-tensors and ModelOpt.

Layouts: DeepSeek-V3's ``README_WEIGHTS.md`` (a scale for each block); the format
``float-quantized`` of compressed-tensors (for tensors, rows or blocks); ModelOpt's ``FP8`` (for
tensors or rows). In all of them a weight is its value times its scale. Scales of activations and of
the cache are left out: inputs are scaled as they come, and the cache is not in fp8.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inference.quantization.checkpoints import EXPERT, Raw, in_order, need, place_plain
from inference.quantization.fp8 import FP8, Fp8, Fp8Weight, dequantize, rows_below, stack
from inference.quantization.modules import QuantizedExperts, QuantizedLinear
from inference.quantization.skeleton import check_experts
from portal.core.errors import Invalid

FP8_METHODS = ("fp8", "compressed-tensors", "modelopt")
"""``quant_method`` of formats that are read here, if their weights are fp8."""
_SCALES = ("weight_scale_inv", "weight_scale")
_LEFT_OUT = ("input_scale", "output_scale", "q_scale", "k_scale", "v_scale")
_MODELOPT = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN")

Block = tuple[int, int]


def place_fp8(
    model: PreTrainedModel,
    owners: dict[str, Raw],
    settings: dict[str, Any],
    *,
    dtype: torch.dtype,
    native: bool,
) -> None:
    """Puts a checkpoint's tensors into the model.

    Args:
        owners: as ``read_owners`` gives them; empty afterwards.
        settings: what ``config.json`` says of the format.
        dtype: of weights that are dequantized.
        native: keep matrices of linear layers and experts in fp8.

    Raises:
        Invalid: another format, or tensors that are not of it.
    """
    block = _block(settings)
    scaled: dict[str, Fp8] = {}
    for owner, raw in owners.items():
        for name in _LEFT_OUT:
            raw.pop(name, None)
        scale = next((raw.pop(name) for name in _SCALES if name in raw), None)
        if scale is not None:
            need(owner, raw, "weight")
            scaled[owner] = _scaled(owner, raw.pop("weight"), scale, block)
    if native:
        _replace(model, scaled)
    for owner in list(scaled):
        owners[owner]["weight"] = dequantize(scaled.pop(owner), dtype)
    place_plain(model, owners)


def _block(settings: dict[str, Any]) -> Block | None:
    """Rows and columns that share a scale; None where a tensor or a row has its own."""
    method = settings.get("quant_method")
    if method == "fp8":
        return _pair(settings.get("weight_block_size"))
    if method == "modelopt" and settings.get("quant_algo") in _MODELOPT:
        return None
    if method == "compressed-tensors":
        weights = [group["weights"] for group in settings.get("config_groups", {}).values()]
        if weights and all(w.get("type") == "float" and w.get("num_bits") == 8 for w in weights):
            return _pair(weights[0].get("block_structure"))
    raise Invalid(f"Weights of format {method!r} are supported in fp8 (e4m3) only.")


def _pair(block: Any) -> Block | None:
    if block is None:
        return None
    rows, columns = block
    return int(rows), int(columns)


def _scaled(owner: str, values: Tensor, scale: Tensor, block: Block | None) -> Fp8:
    if values.dtype != FP8 or values.dim() != 2:
        raise Invalid(f"The weights of {owner} are scaled, and no matrix in fp8 (e4m3).")
    rows, columns = values.shape
    grids: list[Block] = [(rows, columns), (1, columns)]
    if block is not None:
        grids.insert(0, block)
    for tall, wide in grids:
        shape = (-(-rows // tall), -(-columns // wide))
        if scale.shape == shape or (wide == columns and scale.numel() == shape[0]):
            return Fp8(values, scale.float().reshape(shape), (tall, wide))
    raise Invalid(f"The scales of {owner} are of neither its blocks, its rows nor all of it.")


def _replace(model: PreTrainedModel, scaled: dict[str, Fp8]) -> None:
    """Modules that multiply in fp8, for as many of the weights as there are such modules."""
    experts: dict[str, dict[tuple[int, str], Fp8]] = {}
    for owner in list(scaled):
        match = EXPERT.fullmatch(owner)
        if match:
            experts.setdefault(match[1], {})[int(match[2]), match[3]] = scaled.pop(owner)
            continue
        module = _module(model, owner)
        if isinstance(module, nn.Linear):
            weight = Fp8Weight(scaled.pop(owner))
            _check_shape(owner, module.weight, weight)
            model.set_submodule(owner, QuantizedLinear(weight, module.bias))
    for owner in list(experts):
        _replace_experts(model, owner, experts.pop(owner))


def _replace_experts(model: PreTrainedModel, owner: str, found: dict[tuple[int, str], Fp8]) -> None:
    gates, ups, downs = in_order(owner, found)
    found.clear()
    fused = [rows_below(*pair) for pair in zip(gates, ups, strict=True)]
    del gates, ups
    gate_up, down = Fp8Weight(stack(fused)), Fp8Weight(stack(downs))
    module = _module(model, owner)
    check_experts(owner, module)
    _check_shape(owner, module.gate_up_proj, gate_up)
    _check_shape(owner, module.down_proj, down)
    model.set_submodule(owner, QuantizedExperts(gate_up, down, module.act_fn))


def _module(model: PreTrainedModel, owner: str) -> Any:
    try:
        return model.get_submodule(owner)
    except AttributeError:
        raise Invalid(f"The model has no module {owner}, which is in the artefact.") from None


def _check_shape(owner: str, there: Tensor, weight: Fp8Weight) -> None:
    if tuple(there.shape) != weight.shape:
        raise Invalid(f"The weights of {owner} are not of the model's shape.")
