"""Weights in fp8 (e4m3) with scales, and products with them that stay in fp8.

Inputs are brought to fp8 as they come, with a scale for each row and each block of columns, as
DeepSeek-V3 was trained (arXiv 2412.19437, 3.3.2). torch multiplies them in ways that differ between
devices, so that each weight's way is found by trying, as in ``kernels``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import ScalingType

FP8: Final = torch.float8_e4m3fn
BLOCK: Final = 128
"""Rows and columns that share a scale in DeepSeek-V3's checkpoints."""
_LARGEST: Final = torch.finfo(FP8).max
_SMALLEST_INPUT: Final = 1e-10
_LEAST_CAPABILITY: Final = (8, 9)
_ALIGNED: Final = 4  # cuBLAS reads scales 16 bytes at a time
_TOLERANCE: Final = 0.02  # sums of bfloat16 numbers, each rounded to 8 bits
# Multiplying by blocks moves 12 bytes of partial sums for each row and 128 weights, dequantizing 21
# bytes a weight.
_MOST_ROWS_BY_BLOCKS: Final = 128


def computes_fp8(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device multiplies fp8, in a deployment whose activations are of ``dtype``.

    NVIDIA's do from compute capability 8.9, and give bfloat16.
    """
    if dtype != torch.bfloat16 or device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY


@dataclass(frozen=True, slots=True)
class Fp8:
    """A matrix in fp8, or a stack of them.

    Args:
        values: ``[..., rows, columns]``.
        scale: fp32 ``[..., blocks of rows, blocks of columns]``.
        block: rows and columns that share a scale; the last blocks may be cut.
    """

    values: Tensor
    scale: Tensor
    block: tuple[int, int]

    def take(self, index: int) -> "Fp8":
        """One matrix of a stack."""
        return Fp8(self.values[index], self.scale[index], self.block)

    def by_rows(self) -> "Fp8":
        """The same weights with a scale for each row."""
        rows = self.scale.repeat_interleave(self.block[0], -2)[..., : self.values.shape[-2], :]
        return Fp8(self.values, rows, (1, self.block[1]))


def rows_below(upper: Fp8, lower: Fp8) -> Fp8:
    """One matrix of the rows of both, whose blocks are alike."""
    if upper.values.shape[-2] % upper.block[0]:
        upper, lower = upper.by_rows(), lower.by_rows()
    pairs = ((upper.values, lower.values), (upper.scale, lower.scale))
    values, scale = (torch.cat([_bytes(part) for part in pair], dim=-2) for pair in pairs)
    return Fp8(values.view(FP8), scale, upper.block)


def stack(parts: list[Fp8]) -> Fp8:
    """Matrices of one shape and block as a stack."""
    values = torch.stack([_bytes(part.values) for part in parts])
    scale = torch.stack([part.scale for part in parts])
    return Fp8(values.view(FP8), scale, parts[0].block)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint8) if tensor.dtype == FP8 else tensor


def dequantize(weight: Fp8, dtype: torch.dtype) -> Tensor:
    """The weights ``[..., rows, columns]``; each is rounded once."""
    columns = weight.values.shape[-1]
    spread = weight.by_rows().scale.repeat_interleave(weight.block[1], -1)[..., :columns]
    return (weight.values.float() * spread).to(dtype)


def quantize_rows(inputs: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Inputs in fp8, and their scales.

    Args:
        inputs: ``[rows, width]``.
        columns: that share a scale.

    Returns:
        Values ``[rows, width]`` and scales in fp32 ``[rows, blocks]``.
    """
    width = inputs.shape[-1]
    padded = functional.pad(inputs.float(), (0, -width % columns))
    blocks = padded.unflatten(-1, (-1, columns))
    scale = blocks.abs().amax(-1).clamp(min=_SMALLEST_INPUT) / _LARGEST
    values = (blocks / scale[..., None]).to(FP8)
    return values.flatten(-2)[:, :width], scale


def cublas_block_scales(weight: Fp8) -> Tensor:
    """Scales of blocks of 128 by 128 as cuBLAS reads them.

    Returns:
        ``[blocks of columns, blocks of rows]``, column-major, the former in whole fours.

    Raises:
        ValueError: of other blocks.
    """
    if weight.block != (BLOCK, BLOCK):
        raise ValueError(f"Blocks are of {weight.block}.")
    blocks = weight.scale.shape[-1]
    return functional.pad(weight.scale, (0, -blocks % _ALIGNED)).contiguous().transpose(-1, -2)


def _multiply_blocks(inputs: Tensor, weight: Fp8, scales: Tensor) -> Tensor:
    """cuBLAS's own product for such blocks, on Hopper."""
    rows = inputs.shape[0]
    values, scale = quantize_rows(functional.pad(inputs, (0, 0, 0, -rows % _ALIGNED)), BLOCK)
    product = functional.scaled_mm(
        values,
        weight.values.T,
        scale.T.contiguous().T,
        ScalingType.BlockWise1x128,
        scales,
        ScalingType.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )
    return product[:rows]


def _row_scales(weight: Fp8) -> Tensor:
    """``[..., blocks of columns, rows]``."""
    return weight.by_rows().scale.transpose(-1, -2).contiguous()


def _multiply_rows(inputs: Tensor, weight: Fp8, scales: Tensor) -> Tensor:
    """A product for each block of columns, added up in fp32."""
    columns = weight.block[1]
    values, scale = quantize_rows(inputs, columns)
    pairs = zip(values.split(columns, 1), weight.values.split(columns, 1), strict=True)
    total = torch.zeros((), device=inputs.device)
    for number, (left, right) in enumerate(pairs):
        total = total + functional.scaled_mm(
            left,
            right.T,
            scale[:, number : number + 1].contiguous(),
            ScalingType.RowWise,
            scales[number : number + 1],
            ScalingType.RowWise,
            output_dtype=torch.bfloat16,
        )
    return total


@dataclass(frozen=True, slots=True)
class Way:
    """How a weight is multiplied.

    Args:
        scales: of a weight or a stack, as ``multiply`` takes them; ValueError where it can't.
        multiply: inputs ``[rows, columns]``, a weight and its scales to ``[rows, rows of weight]``.
        most_rows: of inputs, beyond which a weight of many blocks is better dequantized.
    """

    scales: Callable[[Fp8], Tensor]
    multiply: Callable[[Tensor, Fp8, Tensor], Tensor]
    most_rows: int | None


WAYS: Final = (
    Way(cublas_block_scales, _multiply_blocks, None),
    Way(_row_scales, _multiply_rows, _MOST_ROWS_BY_BLOCKS),
)


class Fp8Weight(nn.Module):
    """An fp8 matrix, or a stack of them, as buffers.

    Args:
        weight: on its device.
    """

    values: Tensor
    scale: Tensor
    laid_out: Tensor

    def __init__(self, weight: Fp8) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = tuple(weight.values.shape)
        self.block = weight.block
        self.register_buffer("values", weight.values)
        self.register_buffer("scale", weight.scale)
        self._way: Way | None = None

    def dense(self, dtype: torch.dtype, index: int | None = None) -> Tensor:
        """The dequantized weight, or one of a stack."""
        return dequantize(self._matrix(index), dtype)

    def product(self, inputs: Tensor, index: int = 0) -> Tensor:
        """``inputs @ weight.T``, with the matrix ``index`` of a stack."""
        place = index if len(self.shape) > 2 else None
        flat = inputs.reshape(-1, inputs.shape[-1])
        way = self._way
        if way is None or self._is_many(way, flat.shape[0]):
            return functional.linear(inputs, self.dense(inputs.dtype, place))
        scales = self.laid_out if place is None else self.laid_out[place]
        product = way.multiply(flat, self._matrix(place), scales)
        return product.to(inputs.dtype).view(*inputs.shape[:-1], -1)

    def find_way(self) -> None:
        """Finds how torch multiplies this weight here; without any, it is dequantized each time."""
        weight = self._matrix(0 if len(self.shape) > 2 else None)
        self._way = next((way for way in WAYS if _holds(way, weight)), None)
        if self._way is not None:
            self.register_buffer("laid_out", self._way.scales(self._matrix(None)))

    def _matrix(self, index: int | None) -> Fp8:
        whole = Fp8(self.values, self.scale, self.block)
        return whole if index is None else whole.take(index)

    def _is_many(self, way: Way, rows: int) -> bool:
        blocks = self.scale.shape[-1]
        return way.most_rows is not None and blocks > 1 and rows > way.most_rows


def _holds(way: Way, weight: Fp8) -> bool:
    """Whether a way gives what dequantizing both sides gives."""
    columns = weight.values.shape[-1]
    places = torch.arange(5 * columns, device=weight.values.device).view(5, columns)
    inputs = torch.sin(places.float() * 1.7).to(torch.bfloat16)
    values, scale = quantize_rows(inputs, weight.block[1])
    rounded = dequantize(Fp8(values, scale, (1, weight.block[1])), torch.float32)
    expected = functional.linear(rounded, dequantize(weight, torch.float32))
    try:
        found = way.multiply(inputs, weight, way.scales(weight)).float()
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return bool((found - expected).norm() <= _TOLERANCE * expected.norm())
