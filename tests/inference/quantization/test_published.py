"""Checkpoints of publishers: what was packed in their format is what we compute with."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from django.core.management import CommandError, call_command
from torch import Tensor

from inference.artefacts import verify
from inference.quantization.loading import load_quantized
from inference.quantization.packing import dequantize
from inference.quantization.published import unpack_awq, unpack_gptq
from inference.quantization.writing import repack_artefact
from portal.core.errors import Invalid
from tests.inference.quantization.models import (
    GROUP,
    logits_of,
    reference,
    write_checkpoint,
)

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def into_words(fields: Tensor, bits: int, order: list[int] | None = None) -> Tensor:
    """Packs the last dimension into int32, the first field lowest, or in AWQ's order."""
    count = 32 // bits
    places = order or list(range(count))
    words = torch.zeros(*fields.shape[:-1], fields.shape[-1] // count, dtype=torch.int64)
    for place, field in enumerate(places):
        words |= fields[..., field::count].to(torch.int64) << bits * place
    return words.to(torch.int32)


def quantized(weight: Tensor, bits: int, group_of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values ``[rows, columns]``, scales and zeros ``[rows, groups]``, by plain rounding."""
    groups = [weight[:, group_of == group] for group in range(int(group_of.max()) + 1)]
    low = torch.stack([g.amin(1).clamp(max=0) for g in groups], 1)
    high = torch.stack([g.amax(1).clamp(min=0) for g in groups], 1)
    most = 2**bits - 1
    scale = ((high - low) / most).clamp(min=1e-4).to(torch.float16)
    # The format that stores zero points less one has none for 0.
    zeros = (-low / scale).round().clamp(1, most)
    values = weight / scale[:, group_of] + zeros[:, group_of]
    return values.round().clamp(0, most), scale, zeros


def gptq(
    weight: Tensor, bits: int, shuffled: bool, plus: int = 1
) -> tuple[dict[str, Tensor], Tensor]:
    columns = weight.shape[1]
    group_of = torch.arange(columns) // GROUP
    if shuffled:
        group_of = group_of[torch.randperm(columns, generator=torch.Generator().manual_seed(4))]
    values, scale, zeros = quantized(weight, bits, group_of)
    tensors = {
        "qweight": into_words(values, bits).T.contiguous(),
        "qzeros": into_words((zeros - plus).T.contiguous(), bits),
        "scales": scale.T.contiguous(),
        "g_idx": group_of.to(torch.int32),
    }
    return tensors, (values - zeros[:, group_of]) * scale.float()[:, group_of]


def awq(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    group_of = torch.arange(weight.shape[1]) // GROUP
    values, scale, zeros = quantized(weight, 4, group_of)
    tensors = {
        "qweight": into_words(values.T.contiguous(), 4, AWQ_ORDER),
        "qzeros": into_words(zeros.T.contiguous(), 4, AWQ_ORDER),
        "scales": scale.T.contiguous(),
    }
    return tensors, (values - zeros[:, group_of]) * scale.float()[:, group_of]


def random_weight(rows: int = 32, columns: int = 64) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(8)) * 0.1


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("plus", [0, 1])
def test_unpack_gptq_gives_the_weights_that_were_packed(
    bits: int, shuffled: bool, plus: int
) -> None:
    raw, expected = gptq(random_weight(), bits, shuffled, plus)
    packed = unpack_gptq("layer", raw, bits=bits, zero_plus=plus)
    assert (packed.order is not None) == shuffled
    found = dequantize(packed, columns=64, dtype=torch.float32)
    assert torch.allclose(found, expected, atol=1e-5)


def test_unpack_awq_gives_the_weights_that_were_packed() -> None:
    raw, expected = awq(random_weight())
    found = dequantize(unpack_awq("layer", raw), columns=64, dtype=torch.float32)
    assert torch.allclose(found, expected, atol=1e-5)


def test_unpack_gptq_with_groups_of_several_sizes_is_refused() -> None:
    raw, _ = gptq(random_weight(), 4, shuffled=False)
    raw["g_idx"][0] = 1
    with pytest.raises(Invalid, match="several sizes"):
        unpack_gptq("layer", raw, bits=4, zero_plus=1)


FORMATS: dict[str, tuple[dict[str, Any], Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]]] = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False},
        lambda weight: gptq(weight, 4, shuffled=False),
    ),
    "gptq8": (
        {"quant_method": "gptq", "bits": 8, "group_size": GROUP, "desc_act": True},
        lambda weight: gptq(weight, 8, shuffled=True),
    ),
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"},
        awq,
    ),
}


@pytest.mark.parametrize("architecture", ["qwen2", "deepseek_v3"])
@pytest.mark.parametrize("form", list(FORMATS))
def test_repack_computes_what_the_checkpoint_stands_for(
    tmp_path: Path, architecture: str, form: str
) -> None:
    source = tmp_path / "source"
    meant = write_checkpoint(source, architecture, *FORMATS[form])
    manifest = repack_artefact(source, tmp_path / "store", print)
    assert verify(tmp_path / "store" / manifest.id) == manifest
    assert manifest.quantization.startswith(form.rstrip("8"))
    assert repack_artefact(source, tmp_path / "store", print) == manifest
    model = load_quantized(tmp_path / "store" / manifest.id, device="cpu", dtype=torch.float32)
    expected = reference(tmp_path / "plain", architecture, meant)
    assert torch.allclose(logits_of(model), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "gptq", "bits": 3}, "GPTQ weights of 3 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "version gemv"),
        ({"quant_method": "hqq"}, "'hqq' are not supported"),
    ],
)
def test_repack_of_another_format_says_what_is_supported(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    write_checkpoint(tmp_path / "source", "qwen2", settings, FORMATS["awq"][1])
    with pytest.raises(Invalid, match=words):
        repack_artefact(tmp_path / "source", tmp_path / "store", print)
    assert not list((tmp_path / "store").glob("*"))


def test_command_repacks_without_a_text(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source", "qwen2", *FORMATS["awq"])
    out = StringIO()
    arguments = ["--method", "repack", "--store", str(tmp_path / "store")]
    call_command("quantize", str(tmp_path / "source"), *arguments, stdout=out)
    assert "not measured" in out.getvalue()
    with pytest.raises(CommandError, match="--text is needed"):
        call_command(
            "quantize", str(tmp_path / "source"), "--method", "int8", *arguments[2:], stdout=out
        )
