"""Modules with packed weights, in the place of linear layers, embeddings and fused experts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.quantization import kernels
from inference.quantization.fp8 import Fp8Weight
from inference.quantization.packing import Packed, dequantize


class PackedWeight(nn.Module):
    """A packed matrix, or a stack of them, as buffers.

    Args:
        shape: of the weight that it stands for, ``[..., rows, columns]``.
        packed: on the meta device until weights are loaded.
    """

    values: Tensor
    scale: Tensor
    offset: Tensor | None
    order: Tensor | None

    def __init__(self, shape: Sequence[int], packed: Packed) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.bits = packed.bits
        self._kernels: list[kernels.Kernel] = []
        for name in Packed.__slots__:
            self.register_buffer(name, getattr(packed, name))

    @property
    def packed(self) -> Packed:
        """The buffers together."""
        return Packed(self.values, self.scale, self.offset, self.order)

    def dense(self, dtype: torch.dtype, index: int | None = None) -> Tensor:
        """The dequantized weight, or one of a stack."""
        packed = self.packed if index is None else self.packed.take(index)
        return dequantize(packed, columns=self.shape[-1], dtype=dtype)

    def product(self, inputs: Tensor, index: int = 0) -> Tensor:
        """``inputs @ weight.T``, with the matrix ``index`` of a stack."""
        if self._kernels:
            return self._kernels[index](inputs.to(torch.bfloat16)).to(inputs.dtype)
        weight = self.dense(inputs.dtype, index if len(self.shape) > 2 else None)
        return functional.linear(inputs, weight)

    def use_kernel(self, *, keep: bool) -> None:
        """Lays the weights out for torch's kernel, if it can compute with them.

        Args:
            keep: whether the packed weights stay, for an embedding that reads rows of them.
        """
        one = len(self.shape) == 2
        matrices = [self.packed] if one else [self.packed.take(i) for i in range(self.shape[0])]
        found = []
        for matrix in matrices:
            kernel = kernels.build(matrix, columns=self.shape[-1])
            if kernel is None:
                return
            found.append(kernel)
        self._kernels = found
        laid_out = [tensor for kernel in found for pair in kernel.parts for tensor in pair]
        for number, tensor in enumerate(laid_out):
            # Where whoever counts a model's memory finds them.
            self.register_buffer(f"laid_out_{number}", tensor, persistent=False)
        if not keep:
            for name in Packed.__slots__:
                self.register_buffer(name, None)

    def memory_bytes(self) -> int:
        """What the weights take, in all layouts that are held."""
        return sum(buffer.nbytes for buffer in self.buffers())


class QuantizedLinear(nn.Module):
    """A linear layer with packed weights; a bias stays as it is."""

    bias: nn.Parameter | None

    def __init__(self, weight: PackedWeight | Fp8Weight, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.packed = weight
        self.register_parameter("bias", bias)
        self.out_features, self.in_features = weight.shape

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., columns]`` to ``[..., rows]``."""
        product = self.packed.product(inputs)
        bias = self.bias
        return product if bias is None else product + bias


class QuantizedEmbedding(nn.Module):
    """An embedding with packed rows, given in ``dtype``."""

    def __init__(self, weight: PackedWeight, dtype: torch.dtype) -> None:
        super().__init__()
        self.packed = weight
        self.dtype = dtype
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids to their rows."""
        packed = self.packed.packed
        rows = Packed(
            packed.values[ids],
            packed.scale[ids],
            None if packed.offset is None else packed.offset[ids],
        )
        return dequantize(rows, columns=self.embedding_dim, dtype=self.dtype)


class QuantizedExperts(nn.Module):
    """Fused experts with packed weights; only the experts that a batch was routed to are read."""

    def __init__(
        self, gate_up: PackedWeight | Fp8Weight, down: PackedWeight | Fp8Weight, act_fn: Any
    ) -> None:
        super().__init__()
        self.num_experts = gate_up.shape[0]
        self.gate_up_proj = gate_up
        self.down_proj = down
        self.act_fn = act_fn

    def forward(self, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of each token's experts.

        Args:
            hidden: ``[tokens, hidden]``.
            experts: ``[tokens, chosen]``; an index beyond the last expert is nobody's.
            weights: ``[tokens, chosen]``.
        """
        result = torch.zeros_like(hidden)
        for expert in torch.unique(experts).tolist():
            if expert >= self.num_experts:
                continue
            token, place = torch.where(experts == expert)
            gate, up = self.gate_up_proj.product(hidden[token], expert).chunk(2, dim=-1)
            answer = self.down_proj.product(self.act_fn(gate) * up, expert)
            answer = answer * weights[token, place, None]
            result.index_add_(0, token, answer.to(result.dtype))
        return result
