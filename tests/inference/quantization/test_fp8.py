"""Products in fp8: what they give beside dequantized weights, and how their way is found."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import ScalingType

from inference.quantization import fp8
from inference.quantization.fp8 import (
    FP8,
    Fp8,
    Fp8Weight,
    Way,
    computes_fp8,
    dequantize,
    quantize_rows,
    rows_below,
    stack,
)
from tests.inference.engines.device import DEVICE

BF16 = torch.bfloat16
BLOCKS = pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((256, 512), (128, 128)),
        ((208, 304), (128, 128)),
        ((96, 48), (128, 128)),
        ((160, 320), (1, 320)),
        ((160, 320), (160, 320)),
        ((64, 96), (32, 64)),
    ],
)


def weight_of(shape: tuple[int, ...], block: tuple[int, int], seed: int = 1) -> Fp8:
    generator = torch.Generator().manual_seed(seed)
    values = (torch.randn(shape, generator=generator) * 90).to(FP8)
    grid = (-(-shape[-2] // block[0]), -(-shape[-1] // block[1]))
    # Scales far apart: one that is used in another's place shows.
    scale = torch.rand((*shape[:-2], *grid), generator=generator) * 0.01 + 0.0005
    return Fp8(values.to(DEVICE), scale.to(DEVICE), block)


def inputs_of(rows: int, columns: int) -> Tensor:
    made = torch.randn(rows, columns, generator=torch.Generator().manual_seed(7))
    return (made * torch.logspace(-2, 2, rows)[:, None]).to(DEVICE, BF16)


def away(found: Tensor, expected: Tensor) -> float:
    """The largest relative distance of a row."""
    rows = (found.float() - expected.float()).norm(dim=-1) / expected.float().norm(dim=-1)
    return float(rows.max())


def product_of_both_rounded(inputs: Tensor, weight: Fp8) -> Tensor:
    columns = weight.block[1]
    values, scale = quantize_rows(inputs, columns)
    spread = scale.repeat_interleave(columns, 1)[:, : values.shape[1]]
    return functional.linear(values.float() * spread, dequantize(weight, torch.float32))


def test_dequantize_scales_each_block() -> None:
    weight = weight_of((200, 300), (128, 128))
    found = dequantize(weight, torch.float32)
    for row, column in ((0, 0), (127, 128), (128, 127), (199, 299)):
        scale = weight.scale[row // 128, column // 128]
        assert found[row, column] == weight.values[row, column].float() * scale


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 300),
    columns=st.sampled_from([32, 128, 300]),
    power=st.integers(-6, 6),
    seed=st.integers(0, 999),
)
def test_inputs_move_by_no_more_than_half_a_step(
    rows: int, width: int, columns: int, power: int, seed: int
) -> None:
    made = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    made[:, ::5] = 0
    values, scale = quantize_rows(made, columns)
    spread = scale.repeat_interleave(columns, 1)[:, :width]
    error = (values.float() * spread - made).abs()
    # e4m3: three bits behind the point; below 2**-6 steps of 2**-9.
    assert bool((error <= torch.maximum(made.abs() / 16, spread * 2**-10) * 1.001).all())
    assert scale.shape == (rows, -(-width // columns))


@BLOCKS
@pytest.mark.parametrize("rows", [1, 5, 128])
def test_product_in_fp8_is_that_of_the_rounded_numbers(
    shape: tuple[int, int], block: tuple[int, int], rows: int
) -> None:
    weight = weight_of(shape, block)
    module = Fp8Weight(weight)
    module.find_way()
    assert module._way is not None
    inputs = inputs_of(rows, shape[1])
    found = module.product(inputs)
    assert found.dtype == BF16
    assert away(found, product_of_both_rounded(inputs, weight)) < 0.006
    exact = functional.linear(inputs.float(), module.dense(torch.float32))
    assert away(found, exact) < 0.06


def test_product_of_many_rows_and_blocks_dequantizes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fp8, "WAYS", fp8.WAYS[1:])
    module = Fp8Weight(weight_of((256, 512), (128, 128)))
    module.find_way()
    inputs = inputs_of(129, 512)
    assert torch.equal(module.product(inputs), functional.linear(inputs, module.dense(BF16)))


def test_product_with_one_of_a_stack_and_inputs_of_three_dimensions() -> None:
    parts = [weight_of((64, 256), (128, 128), seed) for seed in range(3)]
    module = Fp8Weight(stack(parts))
    module.find_way()
    inputs = inputs_of(6, 256).view(2, 3, 256)
    for number, part in enumerate(parts):
        found = module.product(inputs, number)
        assert found.shape == (2, 3, 64)
        assert away(found.view(6, 64), product_of_both_rounded(inputs.view(6, 256), part)) < 0.006
        assert torch.equal(module.dense(BF16, number), dequantize(part, BF16))


@pytest.mark.parametrize(("rows", "block"), [(128, (128, 128)), (48, (128, 128)), (48, (48, 256))])
def test_rows_below_are_the_weights_of_both(rows: int, block: tuple[int, int]) -> None:
    upper, lower = (weight_of((rows, 256), block, seed) for seed in (1, 2))
    both = dequantize(rows_below(upper, lower), torch.float32)
    expected = [dequantize(part, torch.float32) for part in (upper, lower)]
    assert torch.equal(both, torch.cat(expected))


def as_cublas(
    left: Tensor,
    right: Tensor,
    left_scale: Tensor,
    left_recipe: ScalingType,
    right_scale: Tensor,
    right_recipe: ScalingType,
    *,
    output_dtype: torch.dtype,
) -> Tensor:
    """What cuBLAS computes for blocks on Hopper, of scales that lie as it reads them.

    Layouts: "1D and 2D block scaling for FP8" in cuBLAS's manual, as torch checks them.
    """
    assert (left_recipe, right_recipe) == (
        ScalingType.BlockWise1x128,
        ScalingType.BlockWise128x128,
    )
    (rows, depth), columns = left.shape, right.shape[1]
    assert (depth % 16, columns % 16, rows % 4, left.stride(1), right.stride(0)) == (0, 0, 0, 1, 1)
    blocks = -(-depth // 128)
    whole = -(-blocks // 4) * 4
    for scale, shape in (
        (left_scale, (rows, blocks)),
        (right_scale, (whole, -(-columns // 128))),
    ):
        assert scale.dtype == torch.float32
        assert scale.shape == shape
        assert scale.stride(0) == 1
        assert shape[1] == 1 or scale.stride(1) == shape[0]
    total = torch.zeros(rows, columns, device=left.device)
    for block in range(blocks):
        part = slice(128 * block, 128 * (block + 1))
        across = right_scale[block].repeat_interleave(128)[:columns]
        product = left[:, part].float() @ right[part].float()
        total += product * left_scale[:, block, None] * across
    return total.to(output_dtype)


@pytest.mark.parametrize("shape", [(576, 640), (256, 512), (128, 128), (16, 128)])
@pytest.mark.parametrize("rows", [1, 4, 300])
def test_product_of_blocks_on_hopper_is_asked_for_as_cublas_reads_it(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], rows: int
) -> None:
    monkeypatch.setattr(functional, "scaled_mm", as_cublas)
    weight = weight_of(shape, (128, 128))
    module = Fp8Weight(stack([weight, weight_of(shape, (128, 128), 2)]))
    module.find_way()
    assert module._way is fp8.WAYS[0]
    inputs = inputs_of(rows, shape[1])
    assert away(module.product(inputs), product_of_both_rounded(inputs, weight)) < 0.006


def _without_scales(inputs: Tensor, weight: Fp8, scales: Tensor) -> Tensor:
    return functional.linear(inputs.float(), weight.values.float() * scales.mean())


def _broken(inputs: Tensor, weight: Fp8, scales: Tensor) -> Tensor:
    raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")


@pytest.mark.parametrize("wrong", [_without_scales, _broken])
def test_way_that_does_not_hold_is_not_taken(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    inputs, weight = inputs_of(3, 512), weight_of((256, 512), (128, 128))
    rounded = product_of_both_rounded(inputs, weight)
    bad = Way(lambda weight: weight.scale, wrong, None)
    monkeypatch.setattr(fp8, "WAYS", (bad, fp8.WAYS[1]))
    module = Fp8Weight(weight)
    module.find_way()
    assert away(module.product(inputs), rounded) < 0.006
    monkeypatch.setattr(fp8, "WAYS", (bad,))
    module.find_way()
    assert torch.equal(module.product(inputs), functional.linear(inputs, module.dense(BF16)))


@pytest.mark.parametrize(
    ("kind", "capability", "dtype", "computes"),
    [
        ("cuda", (8, 9), BF16, True),
        ("cuda", (10, 0), BF16, True),
        ("cuda", (8, 6), BF16, False),
        ("cuda", (9, 0), torch.float16, False),
        ("cpu", (9, 0), BF16, False),
    ],
)
def test_fp8_is_computed_from_capability_8_9_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    capability: tuple[int, int],
    dtype: torch.dtype,
    computes: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert computes_fp8(torch.device(kind), dtype) == computes
