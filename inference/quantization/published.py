"""Reads checkpoints that publishers have quantized: GPTQ, AWQ, and fp8.

GPTQ and AWQ are packed anew in our layout, with the same weights. Layouts: ``pack`` in AutoGPTQ's
``qlinear_cuda.py``; ``pack_intweight`` of version "gemm" in AutoAWQ's ``gemm.py``. For fp8 see
``fp8_checkpoints``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.quantization.checkpoints import EXPERT, Raw, in_order, need, place_plain, read_owners
from inference.quantization.description import ModuleScheme
from inference.quantization.fp8 import computes_fp8
from inference.quantization.fp8_checkpoints import FP8_METHODS, place_fp8
from inference.quantization.packing import Packed, pack_nibbles, rows_below, stack
from inference.quantization.skeleton import build_skeleton, finish, replace_modules
from portal.core.errors import Invalid

_MODELOPT = "hf_quant_config.json"  # where older versions of ModelOpt say it
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # which of eight nibbles holds the column


def publishers_format(folder: Path) -> dict[str, Any] | None:
    """What a folder's configuration says of the weights' format; None if they are plain.

    Raises:
        Invalid: no readable configuration.
    """
    try:
        content = msgspec.json.decode((folder / "config.json").read_bytes())
        found = content.get("quantization_config")
        if found is None and (folder / _MODELOPT).is_file():
            of_modelopt = msgspec.json.decode((folder / _MODELOPT).read_bytes())
            found = {"quant_method": "modelopt", **of_modelopt["quantization"]}
    except (OSError, msgspec.DecodeError, AttributeError, KeyError) as fault:
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
    if method not in ("gptq", "awq", *FP8_METHODS):
        raise Invalid(f"Weights of format {method!r} are not supported; gptq, awq and fp8 are.")
    model = build_skeleton(folder, dtype)
    owners = read_owners(model, folder, device)
    if method in FP8_METHODS:
        place_fp8(model, owners, settings, dtype=dtype, native=computes_fp8(device, dtype))
        finish(model, device)
        return model, {}
    unpack = _unpacker(method, settings)
    packed = {}
    for owner in [owner for owner, raw in owners.items() if "qweight" in raw]:
        packed[owner] = unpack(owner, owners[owner])
        owners[owner] = {leaf: t for leaf, t in owners[owner].items() if leaf == "bias"}
    schemes, weights = _by_module(packed)
    replace_modules(model, schemes, weights)
    place_plain(model, owners)
    finish(model, device)
    return model, schemes


def _by_module(
    packed: dict[str, Packed],
) -> tuple[dict[str, ModuleScheme], dict[str, Packed]]:
    """Schemes by module, and weights by the names that modules give them; experts are fused."""
    schemes: dict[str, ModuleScheme] = {}
    weights: dict[str, Packed] = {}
    experts: dict[str, dict[tuple[int, str], Packed]] = {}
    for owner, one in packed.items():
        match = EXPERT.fullmatch(owner)
        if match:
            experts.setdefault(match[1], {})[int(match[2]), match[3]] = one
        else:
            schemes[owner] = ModuleScheme("linear", one.bits, _group_size(one))
            weights[f"{owner}.packed"] = one
    for owner, found in experts.items():
        gates, ups, downs = in_order(owner, found)
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
    need(owner, raw, "qweight", "qzeros", "scales")
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
    need(owner, raw, "qweight", "qzeros", "scales")
    values, zeros = (
        _fields(raw[name], 4).unflatten(-1, (-1, 8))[..., _AWQ_PLACES].flatten(-2).T
        for name in ("qweight", "qzeros")
    )
    return _affine(values, raw["scales"].T, zeros, 4, None)


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
