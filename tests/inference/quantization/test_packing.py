"""Packing weights: what rounding may do to them, and products with them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from inference.quantization import kernels
from inference.quantization.modules import PackedWeight, QuantizedEmbedding, QuantizedLinear
from inference.quantization.packing import (
    Packed,
    dequantize,
    grouped,
    pack_nibbles,
    quantize,
    unpack_nibbles,
)

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 100))
SIZES = st.sampled_from([16, 32, 64])


def weights(shape: tuple[int, ...], seed: int, magnitude: float) -> Tensor:
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * magnitude
    return made * (torch.arange(shape[-1]) % 7 > 0)


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, group_size=SIZES, seed=st.integers(0, 999), power=st.integers(-12, 6))
def test_int8_moves_no_weight_by_more_than_half_a_step(
    shape: tuple[int, int], group_size: int, seed: int, power: int
) -> None:
    weight = weights(shape, seed, 10.0**power)
    packed = quantize(weight, bits=8, group_size=group_size)
    back = dequantize(packed, columns=shape[1], dtype=torch.float32)
    steps = packed.scale.float().repeat_interleave(group_size, -1)[:, : shape[1]]
    assert bool(((back - weight).abs() <= steps * 0.5001).all())
    largest = weight.abs().max()
    assert float(steps.max()) <= max(float(largest) / 127 * 1.01, 1.0)


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, group_size=SIZES, seed=st.integers(0, 999), power=st.integers(-12, 6))
def test_int4_is_at_least_as_near_as_the_grid_from_least_to_largest(
    shape: tuple[int, int], group_size: int, seed: int, power: int
) -> None:
    weight = weights(shape, seed, 10.0**power)
    back = dequantize(
        quantize(weight, bits=4, group_size=group_size), columns=shape[1], dtype=torch.float32
    )
    padded = grouped(functional.pad(weight, (0, -shape[1] % group_size)), group_size)
    low, high = padded.amin(-1, keepdim=True), padded.amax(-1, keepdim=True)
    step = (high - low) / 15
    # Half a step each, and what storing the grid in bfloat16 adds.
    bound = (step / 2 + high.abs().maximum(low.abs()) * 2**-7).square().expand_as(padded).sum()
    assert float((back - weight).square().sum()) <= float(bound) + 1e-30


@given(st.lists(st.integers(0, 15), min_size=2, max_size=40).filter(lambda v: len(v) % 2 == 0))
def test_nibbles_come_back(values: list[int]) -> None:
    assert unpack_nibbles(pack_nibbles(torch.tensor([values]))).tolist() == [values]


def test_int4_finds_the_grid_that_weights_lie_on() -> None:
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(0, 16, (8, 64), generator=generator)
    places[:, ::32], places[:, 1::32] = 0, 15
    weight = places * 0.25 - 2.0
    packed = quantize(weight, bits=4, group_size=32)
    assert torch.equal(dequantize(packed, columns=64, dtype=torch.float32), weight)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("columns", [64, 80])
@pytest.mark.parametrize("group_size", [16, 32])
def test_linear_gives_what_its_dequantized_weight_gives(
    bits: int, columns: int, group_size: int
) -> None:
    weight = weights((48, columns), 3, 0.1)
    packed = PackedWeight(weight.shape, quantize(weight, bits=bits, group_size=group_size))
    bias = torch.nn.Parameter(torch.arange(48.0) / 10)
    inputs = weights((2, 5, columns), 4, 1.0)
    dense = packed.dense(torch.float32)
    expected = functional.linear(inputs, dense, bias)
    layer = QuantizedLinear(packed, bias)
    assert torch.allclose(layer(inputs), expected, atol=1e-5)
    packed.use_kernel(keep=False)
    again = layer(inputs.to(torch.bfloat16)).float()
    assert torch.allclose(again, expected, atol=0.03 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("bits", [8, 4])
def test_kernel_computes_groups_of_32_on_this_machine(bits: int) -> None:
    weight = weights((64, 64), 5, 0.1)
    packed = PackedWeight(weight.shape, quantize(weight, bits=bits, group_size=32))
    before = packed.memory_bytes()
    packed.use_kernel(keep=False)
    assert all(getattr(packed, name) is None for name in Packed.__slots__)
    assert packed.memory_bytes() <= before * 1.25


def test_kernel_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = quantize(weights((64, 64), 5, 0.1), bits=8, group_size=32)
    assert kernels.build(packed, columns=64) is not None
    right = kernels._product
    monkeypatch.setattr(kernels, "_product", lambda *args: right(*args) * 1.2)
    assert kernels.build(packed, columns=64) is None


@pytest.mark.parametrize("bits", [8, 4])
def test_embedding_gives_rows_of_its_dequantized_weight(bits: int) -> None:
    weight = weights((20, 64), 6, 0.1)
    packed = PackedWeight(weight.shape, quantize(weight, bits=bits, group_size=32))
    ids = torch.tensor([[3, 0, 19], [3, 3, 7]])
    rows = QuantizedEmbedding(packed, torch.float32)(ids)
    assert torch.equal(rows, packed.dense(torch.float32)[ids])
