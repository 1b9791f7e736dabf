"""Group-wise packing of weights: each group of columns has a scale, and an offset if asymmetric.

A weight is ``value * scale + offset``. Values of 8 bits are int8 and lie as they are; of 4 bits
they are 0 to 15 and two lie in a byte, the even column in the low half. The columns of a row are
padded to whole groups. ``order`` says which column of the input belongs to each packed column, for
weights whose groups were formed of columns in an order of their own (GPTQ's ``desc_act``).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

SCALE_TYPE = torch.bfloat16
"""It has fp32's range, so that groups of tiny weights keep theirs."""
_REFITS = 3
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed matrix, or a stack of them.

    Args:
        values: ``[..., rows, columns]`` int8, or ``[..., rows, columns / 2]`` uint8 of 4 bits.
        scale: ``[..., rows, groups]``.
        offset: like ``scale``; None where all are zero.
        order: ``[..., columns]``; None where packed columns lie as the input's do.
    """

    values: Tensor
    scale: Tensor
    offset: Tensor | None = None
    order: Tensor | None = None

    @property
    def bits(self) -> int:
        """8 or 4."""
        return 8 if self.values.dtype == torch.int8 else 4

    def take(self, index: int) -> "Packed":
        """One matrix of a stack."""
        return Packed(
            self.values[index],
            self.scale[index],
            None if self.offset is None else self.offset[index],
            None if self.order is None else self.order[index],
        )


def pack_nibbles(values: Tensor) -> Tensor:
    """Values 0 to 15, two into a byte; the last dimension halves."""
    even, odd = values[..., ::2].to(torch.uint8), values[..., 1::2].to(torch.uint8)
    return even | odd << 4


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The inverse of ``pack_nibbles``, as uint8."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)


def grouped(values: Tensor, group_size: int) -> Tensor:
    """``[..., columns]`` as ``[..., groups, group_size]``."""
    return values.reshape(*values.shape[:-1], -1, group_size)


def quantize(weight: Tensor, *, bits: int, group_size: int) -> Packed:
    """Packs a matrix, or each matrix of a stack.

    8 bits are symmetric: no weight moves by more than half a step. 4 bits are asymmetric, and the
    grid of each group is fitted to its weights by least squares.

    Args:
        weight: ``[..., rows, columns]``, any floating type, finite.
        bits: 8 or 4.
        group_size: an even number.
    """
    if weight.dim() > 2:
        return stack([quantize(one, bits=bits, group_size=group_size) for one in weight])
    padding = -weight.shape[-1] % group_size
    groups = grouped(functional.pad(weight.float(), (0, padding)), group_size)
    values, scale, offset = _symmetric(groups) if bits == 8 else _fitted(groups)
    flat = values.flatten(-2)
    if bits == 8:
        return Packed(flat.to(torch.int8), scale.to(SCALE_TYPE))
    return Packed(pack_nibbles(flat), scale.to(SCALE_TYPE), offset.to(SCALE_TYPE))


def _symmetric(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = _stored(groups.abs().amax(-1) / 127)
    values = (groups / scale[..., None]).round().clamp(-127, 127)
    return values, scale, torch.zeros_like(scale)


def _fitted(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The grid from least to largest weight, then better ones where least squares finds them."""
    low = groups.amin(-1)
    scale, offset = _stored((groups.amax(-1) - low) / 15), _rounded(low)
    values = _places(groups, scale, offset)
    error = _error(groups, values, scale, offset)
    for _ in range(_REFITS):
        mean, middle = groups.mean(-1), values.mean(-1)
        spread = (values - middle[..., None]).square().sum(-1)
        together = ((values - middle[..., None]) * (groups - mean[..., None])).sum(-1)
        new_scale = _stored(together / spread.clamp(min=1))
        new_offset = _rounded(mean - new_scale * middle)
        new_values = _places(groups, new_scale, new_offset)
        new_error = _error(groups, new_values, new_scale, new_offset)
        better = new_error < error
        scale, offset = scale.where(~better, new_scale), offset.where(~better, new_offset)
        values = values.where(~better[..., None], new_values)
        error = error.where(~better, new_error)
    return values, scale, offset


def _rounded(numbers: Tensor) -> Tensor:
    return numbers.to(SCALE_TYPE).float()


def _stored(scale: Tensor) -> Tensor:
    """A scale as it will be stored; 1 for a group that needs none."""
    rounded = _rounded(scale)
    return rounded.where(rounded > _TINY, torch.ones_like(rounded))


def _places(groups: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return ((groups - offset[..., None]) / scale[..., None]).round().clamp(0, 15)


def _error(groups: Tensor, values: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return (values * scale[..., None] + offset[..., None] - groups).square().sum(-1)


def dequantize(packed: Packed, *, columns: int, dtype: torch.dtype) -> Tensor:
    """The weights ``[..., rows, columns]`` in the input's order of columns."""
    values = packed.values if packed.bits == 8 else unpack_nibbles(packed.values)
    groups = packed.scale.shape[-1]
    spread = grouped(values, values.shape[-1] // groups).to(dtype)
    weight: Tensor = spread * packed.scale.to(dtype)[..., None]
    if packed.offset is not None:
        weight = weight + packed.offset.to(dtype)[..., None]
    weight = weight.flatten(-2)[..., :columns]
    if packed.order is None:
        return weight
    return weight.gather(-1, packed.order.argsort(-1)[..., None, :].expand(weight.shape))


def stack(parts: list[Packed]) -> Packed:
    """Matrices of one shape as a stack."""
    return Packed(
        torch.stack([part.values for part in parts]),
        torch.stack([part.scale for part in parts]),
        _joined([part.offset for part in parts]),
        _joined([part.order for part in parts]),
    )


def rows_below(upper: Packed, lower: Packed) -> Packed:
    """One matrix of the rows of both, whose columns are packed alike."""
    return replace(
        upper,
        values=torch.cat((upper.values, lower.values), dim=-2),
        scale=torch.cat((upper.scale, lower.scale), dim=-2),
        offset=None
        if upper.offset is None or lower.offset is None
        else torch.cat((upper.offset, lower.offset), dim=-2),
    )


def _joined(tensors: list[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if len(present) == len(tensors) else None
