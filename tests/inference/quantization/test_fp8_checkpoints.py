"""Checkpoints in fp8, kept so or dequantized: both are what the publisher's numbers say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.artefacts import load_manifest, verify
from inference.artefacts.folder import import_folder
from inference.engines.torch_batch.engine import TorchBatchEngine
from inference.quantization import published
from inference.quantization.fp8 import FP8, Fp8, Fp8Weight, dequantize
from inference.quantization.loading import load_quantized
from inference.quantization.modules import QuantizedExperts, QuantizedLinear
from portal.core.errors import Invalid
from tests.inference.engines.support import Sink, request
from tests.inference.quantization.models import (
    complete,
    logits_of,
    reference,
    write_checkpoint,
)

Tensors = tuple[dict[str, Tensor], Tensor]


def in_fp8(weight: Tensor, block: tuple[int, int]) -> Fp8:
    """Each block as large as fp8 goes."""
    rows, columns = weight.shape
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    scale = torch.empty(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            part = weight[
                row * block[0] : (row + 1) * block[0], column * block[1] : (column + 1) * block[1]
            ]
            scale[row, column] = part.abs().max() / 448
    spread = scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)
    return Fp8((weight / spread[:, :columns]).to(FP8), scale, block)


def blocks(weight: Tensor) -> Tensors:
    made = in_fp8(weight, (128, 128))
    tensors = {"weight": made.values, "weight_scale_inv": made.scale}
    return tensors, dequantize(made, torch.float32)


def channels(weight: Tensor) -> Tensors:
    made = in_fp8(weight, (1, weight.shape[1]))
    tensors = {"weight": made.values, "weight_scale": made.scale.to(torch.bfloat16)}
    exact = Fp8(made.values, tensors["weight_scale"].float(), made.block)
    return tensors, dequantize(exact, torch.float32)


def whole(weight: Tensor) -> Tensors:
    made = in_fp8(weight, (weight.shape[0], weight.shape[1]))
    tensors = {
        "weight": made.values,
        "weight_scale": made.scale.reshape(()),
        "input_scale": torch.tensor(0.5),
        "k_scale": torch.tensor(1.0),
    }
    return tensors, dequantize(made, torch.float32)


def compressed(**weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"} | weights}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


FORMATS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensors]]] = {
    "deepseek": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, blocks),
    "fp8-tensors": ({"quant_method": "fp8", "activation_scheme": "static"}, whole),
    "compressed-blocks": (compressed(strategy="block", block_structure=[128, 128]), blocks),
    "compressed-channels": (compressed(strategy="channel"), channels),
    "modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, whole),
}
ALL = pytest.mark.parametrize("form", list(FORMATS))


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that multiplies fp8; this machine's product of rows does as well."""
    monkeypatch.setattr(published, "computes_fp8", lambda device, dtype: dtype == torch.bfloat16)


def away(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@ALL
def test_checkpoint_is_dequantized_where_fp8_is_not_computed(tmp_path: Path, form: str) -> None:
    meant = write_checkpoint(tmp_path / "source", "deepseek_v3_blocks", *FORMATS[form])
    expected = reference(tmp_path / "plain", "deepseek_v3_blocks", meant)
    model = load_quantized(tmp_path / "source", device="cpu", dtype=torch.float32)
    assert torch.allclose(logits_of(model), expected, atol=2e-3, rtol=1e-3)
    assert not any(isinstance(module, Fp8Weight) for module in model.modules())
    low = load_quantized(tmp_path / "source", device="cpu", dtype=torch.bfloat16)
    assert low.get_parameter("model.layers.1.mlp.experts.down_proj").dtype == torch.bfloat16


@ALL
@pytest.mark.usefixtures("native")
def test_checkpoint_stays_in_fp8_where_it_is_computed(tmp_path: Path, form: str) -> None:
    meant = write_checkpoint(tmp_path / "source", "deepseek_v3_blocks", *FORMATS[form])
    expected = reference(tmp_path / "plain", "deepseek_v3_blocks", meant)
    model = load_quantized(tmp_path / "source", device="cpu", dtype=torch.bfloat16)
    kept = {name for name, module in model.named_modules() if isinstance(module, Fp8Weight)}
    assert {f"model.layers.1.mlp.experts.{part}" for part in ("gate_up_proj", "down_proj")} <= kept
    assert "model.layers.0.self_attn.kv_b_proj.packed" in kept
    assert all(model.get_submodule(name)._way is not None for name in kept)
    # Inputs have three bits here, and a router of random weights may choose other experts.
    assert away(logits_of(model), expected) < 0.25
    exact = with_dense_products(model)
    assert away(logits_of(exact), expected) < 0.03


def with_dense_products(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, Fp8Weight):
            module._way = None
    return model


@pytest.mark.usefixtures("native")
def test_experts_in_fp8_give_what_their_dequantized_weights_give(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source", "deepseek_v3_blocks", *FORMATS["deepseek"])
    model = load_quantized(tmp_path / "source", device="cpu", dtype=torch.bfloat16)
    experts = model.get_submodule("model.layers.1.mlp.experts")
    assert isinstance(experts, QuantizedExperts)
    hidden = torch.randn(9, 256, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16)
    chosen = torch.tensor([[0, 3], [1, 4], [2, 0]] * 3)
    shares = torch.rand(9, 2, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        found = experts(hidden, chosen, shares)
        with_dense_products(experts)
        expected = experts(hidden, chosen, shares)
    assert 0 < away(found.float(), expected.float()) < 0.08


@pytest.mark.usefixtures("native")
def test_engine_serves_a_checkpoint_that_stays_in_fp8(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source", "deepseek_v3_blocks", *FORMATS["deepseek"])
    sink = Sink()
    options = {"device": "cpu", "dtype": "bfloat16", "slots": 4, "cache_mb": 2, "threads": 1}
    engine = TorchBatchEngine(
        artefact_dir=tmp_path / "source", context_length=128, options=options, emit=sink
    )
    engine.load()
    try:
        for number in range(3):
            engine.submit(request(str(number), prompt=[5, 77, 130 + number], temperature=0.0))
        for number in range(3):
            assert sink.done(str(number)).completion_tokens == sink.tokens(str(number)) > 0
        assert engine._runner is not None
        assert isinstance(
            engine._runner._model.get_submodule("model.layers.0.mlp.down_proj"), QuantizedLinear
        )
    finally:
        engine.close()


@pytest.mark.parametrize("fp8", [False, True])
def test_layer_for_predicting_more_tokens_is_left_out(
    tmp_path: Path, fp8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "computes_fp8", lambda device, dtype: fp8)
    source = tmp_path / "source"
    write_checkpoint(source, "deepseek_v3", *FORMATS["deepseek"])
    add(source, "model.layers.61.mlp.experts.0.up_proj.weight", torch.zeros(4, 4))
    load_quantized(source, device="cpu", dtype=torch.bfloat16)
    add(source, "model.layers.7.mlp.up_proj.weight", torch.zeros(4, 4))
    with pytest.raises(Invalid, match=r"no tensor model\.layers\.7"):
        load_quantized(source, device="cpu", dtype=torch.bfloat16)


def add(folder: Path, name: str, tensor: Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: tensor}, folder / "model.safetensors", {"format": "pt"})
    complete(folder, "deepseek_v3")


@pytest.mark.parametrize(
    ("settings", "convert", "words"),
    [
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, blocks, "in fp8"),
        (compressed(type="int"), channels, "in fp8"),
        ({"quant_method": "compressed-tensors"}, channels, "in fp8"),
        (
            {"quant_method": "fp8"},
            lambda weight: (blocks(weight)[0] | {"weight_scale_inv": torch.ones(7, 7)}, weight),
            "neither its blocks",
        ),
        (
            {"quant_method": "fp8"},
            lambda weight: ({"weight": weight, "weight_scale": torch.ones(1)}, weight),
            "no matrix in fp8",
        ),
        (
            {"quant_method": "fp8"},
            lambda weight: ({"weight_scale": torch.ones(1)}, weight),
            "lacks the tensor",
        ),
    ],
)
def test_checkpoint_of_another_format_is_refused(
    tmp_path: Path,
    settings: dict[str, Any],
    convert: Callable[[Tensor], Tensors],
    words: str,
) -> None:
    write_checkpoint(tmp_path / "source", "deepseek_v3", settings, convert)
    with pytest.raises(Invalid, match=words):
        load_quantized(tmp_path / "source", device="cpu", dtype=torch.bfloat16)


def test_format_that_modelopt_told_in_its_own_file_is_imported_and_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    meant = write_checkpoint(source, "deepseek_v3", *FORMATS["modelopt"])
    config = msgspec.json.decode((source / "config.json").read_bytes())
    del config["quantization_config"]
    (source / "config.json").write_bytes(msgspec.json.encode(config))
    told = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    (source / "hf_quant_config.json").write_bytes(msgspec.json.encode(told))
    manifest = import_folder(
        source, tmp_path / "store", name="m", licence="MIT", provenance="made here"
    )
    folder = tmp_path / "store" / manifest.id
    assert verify(folder) == load_manifest(folder)
    assert manifest.quantization == "MODELOPT"
    model = load_quantized(folder, device="cpu", dtype=torch.float32)
    expected = reference(tmp_path / "plain", "deepseek_v3", meant)
    assert torch.allclose(logits_of(model), expected, atol=2e-3, rtol=1e-3)
