"""Products with packed weights by torch's own kernel for groups of 4-bit values.

torch has no kernel for groups of 8-bit values, so that one of 8 bits is computed as two of 4:
``value = 16 * high + low``. The same bytes are read once, and no dequantized weight is written.
Only in bfloat16 is the kernel quick; elsewhere weights are dequantized for each product.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference.quantization.packing import Packed, dequantize, unpack_nibbles

_GROUP_SIZES = (32, 64, 128, 256)
_TOLERANCE = 0.02  # bfloat16 has 8 bits, and the sum of two products is rounded once more
_INNER_TILES = (8, 4, 2)  # of the CUDA kernel's layout, in 16 columns each


@dataclass(frozen=True, slots=True)
class Kernel:
    """A weight matrix in the kernel's layout; called with ``[..., columns]``, gives rows."""

    parts: tuple[tuple[Tensor, Tensor], ...]
    group_size: int
    padded: int
    order: Tensor | None

    def __call__(self, inputs: Tensor) -> Tensor:
        """The product of bfloat16 inputs with the weight."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        if self.order is not None:
            flat = flat[:, self.order]
        if self.padded > flat.shape[-1]:
            flat = functional.pad(flat, (0, self.padded - flat.shape[-1]))
        product = _product(flat, *self.parts[0], self.group_size)
        for values, scales in self.parts[1:]:
            product = product + _product(flat, values, scales, self.group_size)
        return product.view(*inputs.shape[:-1], -1)


def build(packed: Packed, *, columns: int) -> Kernel | None:
    """The weight for the kernel, or None where it does not give what dequantizing gives.

    The kernel has limits of its own for each device and shape, so that it is asked rather than
    predicted: one product is compared for each weight.
    """
    groups = packed.scale.shape[-1]
    padded = packed.values.shape[-1] * (8 // packed.bits)
    group_size = padded // groups
    if group_size not in _GROUP_SIZES:
        return None
    try:
        kernel = Kernel(
            tuple(_laid_out(*part) for part in _halves(packed)), group_size, padded, packed.order
        )
        return kernel if _holds(kernel, packed, columns) else None
    except (RuntimeError, NotImplementedError):
        return None


def _halves(packed: Packed) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Values 0 to 15, scale and what the kernel adds: it computes (value - 8) * scale + added."""
    scale = packed.scale.float()
    offset = torch.zeros_like(scale) if packed.offset is None else packed.offset.float()
    if packed.bits == 4:
        return [(unpack_nibbles(packed.values), scale, offset + 8 * scale)]
    values = packed.values.to(torch.int32)
    high, low = (values >> 4) + 8, values & 15
    return [(high, 16 * scale, torch.zeros_like(scale)), (low, scale, offset + 8 * scale)]


def _laid_out(values: Tensor, scale: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    scales = torch.stack((scale, added), dim=-1).transpose(0, 1).contiguous().to(torch.bfloat16)
    if values.device.type == "cpu":
        pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
        return pack(values.to(torch.int32), 1), scales
    tiles = next(n for n in (*_INNER_TILES, 1) if n == 1 or values.shape[-1] % (16 * n) == 0)
    bytes_ = values.to(torch.uint8)
    return (
        torch.ops.aten._convert_weight_to_int4pack(bytes_[:, ::2] << 4 | bytes_[:, 1::2], tiles),
        scales,
    )


def _product(inputs: Tensor, values: Tensor, scales: Tensor, group_size: int) -> Tensor:
    if inputs.device.type == "cpu":
        multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    else:
        multiply = torch.ops.aten._weight_int4pack_mm
    # The kernels read their input as it lies in memory.
    return multiply(inputs.contiguous(), values, group_size, scales)


def _holds(kernel: Kernel, packed: Packed, columns: int) -> bool:
    places = torch.arange(columns, device=packed.values.device)
    inputs = torch.sin(places.float() * 1.7).to(torch.bfloat16)[None]
    weight = dequantize(packed, columns=columns, dtype=torch.float32)
    expected = functional.linear(inputs.float(), weight)
    worst = (kernel(inputs).float() - expected).abs().max()
    bound = functional.linear(inputs.float().abs(), weight.abs()).max()
    return bool(worst <= _TOLERANCE * bound)
