"""Quantized artefacts: written once, loaded again, refused when damaged."""

from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from django.core.management import CommandError, call_command
from torch import nn
from torch.nn import functional

from inference.artefacts import Manifest, load_manifest, verify
from inference.artefacts.manifest import file_entry
from inference.quantization.description import Description, read_description
from inference.quantization.loading import load_quantized
from inference.quantization.modules import (
    PackedWeight,
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
)
from inference.quantization.writing import Plan, quantize_artefact
from portal.core.errors import Invalid, NotFound
from tests.inference.quantization.models import CONFIGS, TEXT, tiny_model, write_artefact

ARCHITECTURES = pytest.mark.parametrize("architecture", list(CONFIGS))
METHODS = pytest.mark.parametrize("method", ["int8", "int4"])
PROMPT = torch.tensor([[5, 77, 130, 200, 9, 41]])


def quantized(tmp_path: Path, architecture: str, method: str = "int8") -> Path:
    source = tmp_path / architecture
    write_artefact(source, architecture)
    plan = Plan(method, 32, TEXT)
    return tmp_path / "store" / quantize_artefact(source, tmp_path / "store", plan, print).id


def logits(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=PROMPT, use_cache=False).logits.float()


def described(folder: Path) -> Description:
    found = read_description(folder)
    assert found is not None
    return found


@METHODS
@ARCHITECTURES
def test_quantize_keeps_a_model_that_loads_and_generates(
    tmp_path: Path, architecture: str, method: str
) -> None:
    folder = quantized(tmp_path, architecture, method)
    model = load_quantized(folder, device="cpu", dtype=torch.float32)
    original = logits(tiny_model(architecture))
    away = (logits(model) - original).norm() / original.norm()
    # In 4 bits a router of random weights chooses other experts here and there.
    assert float(away) < (0.05 if method == "int8" else 0.9)
    low = load_quantized(folder, device="cpu", dtype=torch.bfloat16)
    for loaded in (model, low):
        tokens = loaded.generate(PROMPT, max_new_tokens=6, do_sample=False, eos_token_id=None)
        assert tokens.shape == (1, PROMPT.shape[1] + 6)
        again = loaded.generate(
            PROMPT, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=False
        )
        assert loaded is low or torch.equal(tokens, again)


@ARCHITECTURES
def test_quantize_packs_every_matrix_of_a_model(tmp_path: Path, architecture: str) -> None:
    model = load_quantized(quantized(tmp_path, architecture), device="cpu", dtype=torch.float32)
    left = {name for name, value in model.named_parameters() if value.dim() > 1}
    # A router chooses experts with fp32 weights of its own.
    assert all(name.endswith("mlp.gate.weight") for name in left)
    kinds = {type(module) for module in model.modules()}
    assert {QuantizedLinear, QuantizedEmbedding} <= kinds
    assert (QuantizedExperts in kinds) == architecture.startswith("deepseek")


@ARCHITECTURES
def test_quantized_model_gives_what_its_dequantized_weights_give(
    tmp_path: Path, architecture: str
) -> None:
    folder = quantized(tmp_path, architecture)
    model = load_quantized(folder, device="cpu", dtype=torch.float32)
    plain = load_quantized(folder, device="cpu", dtype=torch.float32)
    for name, module in list(plain.named_modules()):
        if isinstance(module, QuantizedLinear):
            plain.set_submodule(name, Dense(module.packed.dense(torch.float32), module.bias))
    assert torch.allclose(logits(model), logits(plain), atol=1e-4)


@METHODS
def test_memory_of_weights_that_are_laid_out_for_a_kernel_is_counted(
    tmp_path: Path, method: str
) -> None:
    folder = quantized(tmp_path, "qwen2", method)
    sizes = []
    for dtype in (torch.float32, torch.bfloat16):
        model = load_quantized(folder, device="cpu", dtype=dtype)
        packed = [module for module in model.modules() if isinstance(module, PackedWeight)]
        sizes.append(sum(part.nbytes for module in packed for part in module.buffers()))
    # Eight bits are laid out as two of four, each with scales and offsets; padding is on top.
    assert sizes[0] <= sizes[1] <= 1.5 * sizes[0]


class Dense(nn.Module):
    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.kept = weight
        self.added = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.kept, self.added)


def test_experts_give_what_transformers_gives_with_their_dequantized_weights(
    tmp_path: Path,
) -> None:
    folder = quantized(tmp_path, "deepseek_v3", "int4")
    loaded = load_quantized(folder, device="cpu", dtype=torch.float32)
    name = "model.layers.1.mlp.experts"
    ours = loaded.get_submodule(name)
    assert isinstance(ours, QuantizedExperts)
    theirs: Any = deepcopy(tiny_model("deepseek_v3").get_submodule(name))
    theirs.config._experts_implementation = "eager"
    for part in ("gate_up_proj", "down_proj"):
        packed = getattr(ours, part)
        assert isinstance(packed, PackedWeight)
        setattr(theirs, part, nn.Parameter(packed.dense(torch.float32)))
    hidden = torch.randn(9, 64, generator=torch.Generator().manual_seed(2))
    chosen = torch.tensor([[0, 3], [1, 4], [2, 0]] * 3)
    shares = torch.rand(9, 2, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = theirs(hidden, chosen, shares)
        assert torch.allclose(ours(hidden, chosen, shares), expected, atol=1e-4, rtol=1e-4)


def test_tied_head_shares_the_packed_embedding(tmp_path: Path) -> None:
    folder = quantized(tmp_path, "llama")
    model = load_quantized(folder, device="cpu", dtype=torch.float32)
    head, embedding = model.get_submodule("lm_head"), model.get_submodule("model.embed_tokens")
    assert head.packed is embedding.packed
    assert described(folder).modules["lm_head"].kind == "tied"


def run(source: Path, tmp_path: Path, *more: str) -> str:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    out = StringIO()
    arguments = ["--text", str(text), "--store", str(tmp_path / "store"), *more]
    call_command("quantize", str(source), *arguments, stdout=out)
    return out.getvalue()


@METHODS
def test_command_writes_an_artefact_and_says_what_it_is_worth(tmp_path: Path, method: str) -> None:
    source = tmp_path / "source"
    original = write_artefact(source, "llama")
    said = run(source, tmp_path, "--method", method)
    (folder,) = (tmp_path / "store").iterdir()
    manifest = verify(folder)
    assert isinstance(manifest, Manifest)
    assert manifest.quantization == f"{method}-g32"
    assert (manifest.name, manifest.format) == (f"tiny-llama-{method}", "safetensors")
    assert manifest.digest != original.digest
    description = described(folder)
    assert (description.origin, description.source_digest) == ("platform", original.digest)
    quality = description.quality
    assert quality is not None
    assert quality.tokens == len(TEXT) - 2
    assert 0 < quality.top1_agreement <= 1
    assert quality.size_ratio < 0.3
    for words in (f"{quality.top1_agreement:.2%}", f"{quality.size_ratio:.3f}", str(folder)):
        assert words in said


@pytest.mark.parametrize("group_size", [None, "16"])
def test_command_compares_all_methods_and_writes_nothing(
    tmp_path: Path, group_size: str | None
) -> None:
    source = tmp_path / "source"
    write_artefact(source, "llama")
    more = () if group_size is None else ("--group-size", group_size)
    said = run(source, tmp_path, "--table", *more)
    table = [line.split() for line in said.splitlines() if line.endswith("%")]
    size = group_size or "32"
    assert [row[0] for row in table] == ["fp32", "bf16", f"int8-g{size}", f"int4-g{size}"]
    assert table[0][1:] == ["1.000", table[0][2], "+0.00%", "100.00%"]
    assert table[1][1] == "0.500"
    assert f"Measured on {len(TEXT) - 2} tokens" in said
    assert not (tmp_path / "store").exists()
    # What the gate is told of a method is what the table says of it.
    plan = Plan("int8", int(size), TEXT)
    made = quantize_artefact(source, tmp_path / "store", plan, lambda line: None)
    quality = described(tmp_path / "store" / made.id).quality
    assert quality is not None
    assert table[2][1:] == [
        f"{quality.size_ratio:.3f}",
        f"{quality.perplexity:.3f}",
        f"{quality.perplexity_change:+.2%}",
        f"{quality.top1_agreement:.2%}",
    ]


def test_command_twice_changes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_artefact(source, "llama")
    run(source, tmp_path, "--method", "int8")
    (folder,) = (tmp_path / "store").iterdir()
    before = {path.name: path.stat() for path in folder.iterdir()}
    assert "load the weights" not in run(source, tmp_path, "--method", "int8")
    assert {path.name: path.stat() for path in folder.iterdir()} == before


def test_command_leaves_its_source_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    manifest = write_artefact(source, "qwen2")
    run(source, tmp_path, "--method", "int4")
    assert verify(source) == manifest


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method", "int8", "--group-size", "7"), "even number"),
        (("--method", "int8", "--most-tokens", "1"), "too short"),
    ],
)
def test_command_says_what_is_wrong(tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    source = tmp_path / "source"
    write_artefact(source, "llama")
    with pytest.raises(CommandError, match=words):
        run(source, tmp_path, *more)
    assert not list((tmp_path / "store").glob("*"))


def test_quantize_twice_over_is_refused(tmp_path: Path) -> None:
    folder = quantized(tmp_path, "llama")
    with pytest.raises(CommandError, match="quantized already"):
        run(folder, tmp_path, "--method", "int8")


def test_load_of_a_damaged_folder_names_the_file(tmp_path: Path) -> None:
    folder = quantized(tmp_path, "llama")
    for path in (folder / "model-00001.safetensors", folder / "quantization.json"):
        content = path.read_bytes()
        path.write_bytes(content[:-9] + b"!" * 9)
        with pytest.raises(Invalid, match=f"{path.name} is corrupt"):
            load_quantized(folder, device="cpu", dtype=torch.float32)
        path.write_bytes(content)
    (folder / "quantization.json").unlink()
    with pytest.raises(NotFound, match="no packed weights"):
        load_quantized(folder, device="cpu", dtype=torch.float32)


def test_load_of_weights_of_another_model_names_the_tensor(tmp_path: Path) -> None:
    folder = quantized(tmp_path, "llama")
    config = folder / "config.json"
    content = msgspec.json.decode(config.read_bytes()) | {"intermediate_size": 128}
    config.unlink()
    config.write_bytes(msgspec.json.encode(content))
    accept_files(folder)
    with pytest.raises(Invalid, match=r"mlp\.\w+_proj\.packed are not of the model's shape"):
        load_quantized(folder, device="cpu", dtype=torch.float32)


def accept_files(folder: Path) -> None:
    """Writes the manifest anew, as if the folder had been made as it now is."""
    manifest = load_manifest(folder)
    files = {name: file_entry(folder / name) for name in manifest.files}
    (folder / "manifest.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(manifest, files=files))
    )
