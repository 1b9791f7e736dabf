"""Reads checkpoints that publishers have quantized: GPTQ, AWQ, and fp8 in blocks (DeepSeek-V3).

GPTQ and AWQ are packed anew in our layout, with the same weights. Layouts: ``pack`` in AutoGPTQ's
``qlinear_cuda.py``; ``pack_intweight`` of version "gemm" in AutoAWQ's ``gemm.py``; DeepSeek-V3's
``README_WEIGHTS.md`` for fp8, which is dequantized while it is loaded.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.quantization.description import ModuleScheme
from inference.quantization.packing import Packed, pack_nibbles, rows_below, stack
from inference.quantization.shards import read_tensors
from inference.quantization.skeleton import build_skeleton, finish, place, replace_modules
from portal.core.errors import Invalid

_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(gate|up|down)_proj")
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # which of eight nibbles holds the column
_FP8_BLOCK = 128

Raw = dict[str, Tensor]


def publishers_format(folder: Path) -> dict[str, Any] | None:
    """What ``config.json`` says of the weights' format; None if they are plain.

    Raises:
        Invalid: no readable configuration.
    """
    try:
        content = msgspec.json.decode((folder / "config.json").read_bytes())
        found = content.get("quantization_config")
    except (OSError, msgspec.DecodeError, AttributeError) as fault:
        raise Invalid(f"The configuration in {folder} cannot be read: {fault}") from None
    return found if isinstance(found, dict) else None


def load_published(
    folder: Path, *, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, ModuleScheme]]:
    """The model of a checkpoint that its publisher quantized, and how its modules are packed.

    Raises:
        Invalid: a format that is not supported, or tensors that are not of it.
    """
    settings = publishers_format(folder) or {}
    method = settings.get("quant_method")
    if method not in ("gptq", "awq", "fp8"):
        raise Invalid(f"Weights of format {method!r} are not supported; gptq, awq and fp8 are.")
    model = build_skeleton(folder, dtype)
    owners: dict[str, Raw] = {}
    for name, tensor in read_tensors(folder, device):
        owner, _, leaf = name.rpartition(".")
        owners.setdefault(owner, {})[leaf] = tensor
    if method == "fp8":
        _place_plain(model, _dequantize_blocks(owners, settings, dtype))
        finish(model, device)
        return model, {}
    unpack = _unpacker(method, settings)
    packed = {}
    for owner in [owner for owner, raw in owners.items() if "qweight" in raw]:
        packed[owner] = unpack(owner, owners[owner])
        owners[owner] = {leaf: t for leaf, t in owners[owner].items() if leaf == "bias"}
    schemes, weights = _by_module(packed)
    replace_modules(model, schemes, weights)
    _place_plain(model, owners)
    finish(model, device)
    return model, schemes


def _place_plain(model: PreTrainedModel, owners: dict[str, Raw]) -> None:
    experts: dict[str, dict[tuple[int, str], Tensor]] = {}
    for owner, raw in owners.items():
        match = _EXPERT.fullmatch(owner)
        if match and "weight" in raw:
            experts.setdefault(match[1], {})[int(match[2]), match[3]] = raw["weight"]
            continue
        for leaf, tensor in raw.items():
            place(model, f"{owner}.{leaf}", tensor)
    for owner, found in experts.items():
        gates, ups, downs = _sorted(owner, found)
        fused = [torch.cat(pair) for pair in zip(gates, ups, strict=True)]
        place(model, f"{owner}.gate_up_proj", torch.stack(fused))
        place(model, f"{owner}.down_proj", torch.stack(downs))


def _sorted(owner: str, found: dict[tuple[int, str], Any]) -> tuple[list[Any], ...]:
    """Gate, up and down of each expert in order.

    Raises:
        Invalid: one is missing.
    """
    count = max(number for number, _ in found) + 1
    try:
        return tuple([found[n, part] for n in range(count)] for part in ("gate", "up", "down"))
    except KeyError as missing:
        raise Invalid(f"The artefact lacks weights of {owner}: {missing}.") from None


def _by_module(
    packed: dict[str, Packed],
) -> tuple[dict[str, ModuleScheme], dict[str, Packed]]:
    """Schemes by module, and weights by the names that modules give them; experts are fused."""
    schemes: dict[str, ModuleScheme] = {}
    weights: dict[str, Packed] = {}
    experts: dict[str, dict[tuple[int, str], Packed]] = {}
    for owner, one in packed.items():
        match = _EXPERT.fullmatch(owner)
        if match:
            experts.setdefault(match[1], {})[int(match[2]), match[3]] = one
        else:
            schemes[owner] = ModuleScheme("linear", one.bits, _group_size(one))
            weights[f"{owner}.packed"] = one
    for owner, found in experts.items():
        gates, ups, downs = _sorted(owner, found)
        for gate, up in zip(gates, ups, strict=True):
            if not _same_order(gate.order, up.order):
                raise Invalid(f"{owner}: gate and up projections have their columns in two orders.")
        fused = [rows_below(*pair) for pair in zip(gates, ups, strict=True)]
        weights[f"{owner}.gate_up_proj"] = stack(fused)
        weights[f"{owner}.down_proj"] = stack(downs)
        schemes[owner] = ModuleScheme("experts", gates[0].bits, _group_size(gates[0]))
    return schemes, weights


def _same_order(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)


def _group_size(packed: Packed) -> int:
    return packed.values.shape[-1] * (8 // packed.bits) // packed.scale.shape[-1]


def _unpacker(method: str, settings: dict[str, Any]) -> Callable[[str, Raw], Packed]:
    bits = settings.get("bits", settings.get("w_bit"))
    if method == "gptq" and bits in (4, 8):
        plus = 0 if settings.get("checkpoint_format") == "gptq_v2" else 1
        return lambda owner, raw: unpack_gptq(owner, raw, bits=bits, zero_plus=plus)
    if method == "awq" and bits == 4 and settings.get("version", "gemm").lower() == "gemm":
        return unpack_awq
    raise Invalid(
        f"{method.upper()} weights of {bits} bits (version {settings.get('version')}) are not "
        "supported; GPTQ of 4 and 8 bits and AWQ gemm of 4 bits are."
    )


def unpack_gptq(owner: str, raw: Raw, *, bits: int, zero_plus: int) -> Packed:
    """A GPTQ matrix in our layout.

    Args:
        raw: ``qweight`` int32 ``[columns * bits / 32, rows]``, ``qzeros`` int32
            ``[groups, rows * bits / 32]``, ``scales`` ``[groups, rows]``; ``g_idx`` ``[columns]``
            says each column's group.
        zero_plus: 1 for the format that stores zero points less one.

    Raises:
        Invalid: tensors are missing, or groups are of several sizes.
    """
    _need(owner, raw, "qweight", "qzeros", "scales")
    values = _fields(raw["qweight"].T, bits)
    zeros = _fields(raw["qzeros"], bits).T + zero_plus & (1 << bits) - 1
    order = None
    if "g_idx" in raw:
        group_of = raw["g_idx"].long()
        groups = raw["scales"].shape[0]
        size = group_of.numel() // groups
        if not torch.equal(group_of, torch.arange(len(group_of), device=group_of.device) // size):
            order = group_of.argsort(stable=True)
            if not torch.equal(
                group_of.bincount(minlength=groups), torch.full_like(group_of[:groups], size)
            ):
                raise Invalid(f"The groups of {owner} are of several sizes.")
            values = values[:, order]
            order = order.to(torch.int32)
    return _affine(values, raw["scales"].T, zeros, bits, order)


def unpack_awq(owner: str, raw: Raw) -> Packed:
    """An AWQ matrix of 4 bits in our layout.

    Args:
        raw: ``qweight`` int32 ``[columns, rows / 8]``, ``qzeros`` int32 ``[groups, rows / 8]``,
            ``scales`` ``[groups, rows]``.

    Raises:
        Invalid: tensors are missing.
    """
    _need(owner, raw, "qweight", "qzeros", "scales")
    values, zeros = (
        _fields(raw[name], 4).unflatten(-1, (-1, 8))[..., _AWQ_PLACES].flatten(-2).T
        for name in ("qweight", "qzeros")
    )
    return _affine(values, raw["scales"].T, zeros, 4, None)


def _need(owner: str, raw: Raw, *names: str) -> None:
    missing = [name for name in names if name not in raw]
    if missing:
        raise Invalid(f"The artefact lacks the tensor {owner}.{missing[0]}.")


def _fields(packed: Tensor, bits: int) -> Tensor:
    """Fields of ``bits`` of each int32 of the last dimension, the lowest first."""
    shifts = torch.arange(0, 32, bits, device=packed.device, dtype=torch.int32)
    return (packed[..., None] >> shifts & (1 << bits) - 1).flatten(-2)


def _affine(
    values: Tensor, scale: Tensor, zeros: Tensor, bits: int, order: Tensor | None
) -> Packed:
    """``(value - zero) * scale`` as ``value * scale + offset``; the offset is exact in fp32."""
    middle = 128 if bits == 8 else 0
    offset = (middle - zeros).float() * scale.float()
    shifted = values - middle
    return Packed(
        shifted.to(torch.int8) if bits == 8 else pack_nibbles(shifted),
        scale.contiguous(),
        offset.contiguous() if bool(offset.any()) else None,
        order,
    )


def _dequantize_blocks(
    owners: dict[str, Raw], settings: dict[str, Any], dtype: torch.dtype
) -> dict[str, Raw]:
    if list(settings.get("weight_block_size", ())) != [_FP8_BLOCK, _FP8_BLOCK]:
        raise Invalid("fp8 weights are supported with scales of blocks of 128 by 128 only.")
    for owner, raw in owners.items():
        scale = raw.pop("weight_scale_inv", None)
        if scale is not None:
            _need(owner, raw, "weight")
            raw["weight"] = dequantize_blocks(raw["weight"], scale, dtype)
    return owners


def dequantize_blocks(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """An fp8 matrix times the scale of each block of 128 by 128, of which the last may be cut."""
    rows, columns = weight.shape
    spread = scale.float().repeat_interleave(_FP8_BLOCK, 0)[:rows]
    spread = spread.repeat_interleave(_FP8_BLOCK, 1)[:, :columns]
    return (weight.float() * spread).to(dtype)
