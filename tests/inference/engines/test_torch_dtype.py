"""In which number format torch_batch computes if it is left to choose."""

from pathlib import Path

import pytest
import torch

from inference.engines.torch_batch.loading import load_model, pick_dtype
from inference.engines.torch_batch.options import Dtype
from inference.quantization.writing import Plan, quantize_artefact
from tests.inference.engines.tiny_models import save_tiny, tiny_model
from tests.inference.quantization.models import TEXT, write_artefact

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def _pretend(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    able = {name: name in instructions for name in ("avx512_f", "avx512_bf16", "amx_bf16", "bf16")}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)


@pytest.mark.parametrize("instructions", [("avx512_f", "avx512_bf16"), ("amx_bf16",), ("bf16",)])
@pytest.mark.parametrize("own", [BF16, F16])
def test_auto_on_a_cpu_with_bfloat16_instructions_is_bfloat16(
    monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...], own: torch.dtype
) -> None:
    _pretend(monkeypatch, *instructions)
    assert pick_dtype("auto", own, CPU, packed=False) == BF16


@pytest.mark.parametrize(
    ("asked", "own", "device", "packed", "wanted"),
    [
        ("auto", BF16, CPU, False, F32),
        ("auto", F16, CPU, False, F32),
        ("auto", F32, CPU, False, F32),
        ("auto", None, CPU, False, F32),
        ("auto", BF16, CPU, True, BF16),
        ("auto", F32, CPU, True, BF16),
        ("auto", F16, CUDA, False, F16),
        ("auto", None, CUDA, False, BF16),
        ("auto", F32, CUDA, True, F32),
        ("bfloat16", F32, CPU, False, BF16),
        ("float16", BF16, CPU, False, F16),
        ("float32", BF16, CPU, True, F32),
    ],
)
def test_pick_dtype_where_a_cpu_emulates_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
    asked: Dtype,
    own: torch.dtype | None,
    device: torch.device,
    packed: bool,
    wanted: torch.dtype,
) -> None:
    _pretend(monkeypatch, "avx512_f")
    assert pick_dtype(asked, own, device, packed=packed) == wanted


def test_load_model_in_32_bits_holds_exactly_the_weights_of_16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, "avx512_f")
    artefact = save_tiny(tmp_path, "llama")
    tiny_model("llama").to(BF16).save_pretrained(artefact)
    loaded = load_model(artefact, device=CPU, dtype="auto").state_dict()
    stored = tiny_model("llama").to(BF16).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {F32}
    assert all(torch.equal(loaded[name], stored[name].float()) for name in stored)


def test_load_model_in_32_bits_stores_weights_by_columns_and_keeps_shared_ones_shared(
    tmp_path: Path,
) -> None:
    artefact = save_tiny(tmp_path, "llama")
    source = tiny_model("llama")
    source.config.tie_word_embeddings = True
    source.tie_weights()
    source.save_pretrained(artefact)
    model = load_model(artefact, device=CPU, dtype="float32")
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert layers
    assert all(layer.weight.t().is_contiguous() for layer in layers)
    assert model.get_submodule("model.embed_tokens").weight is model.get_submodule("lm_head").weight
    ids = torch.tensor([[3, 99, 250, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, source(ids).logits)


def test_load_model_with_packed_weights_uses_their_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, "avx512_f")
    write_artefact(tmp_path / "source", "llama")
    plan = Plan("int8", 32, TEXT, "packed", 16)
    made = quantize_artefact(tmp_path / "source", tmp_path, plan, lambda _line: None)
    model = load_model(tmp_path / made.id, device=CPU, dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {BF16}
