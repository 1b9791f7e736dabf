"""Tiny models of every architecture, as artefact folders."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from inference.artefacts import Manifest, import_byte_level
from inference.artefacts.manifest import file_entry

_SMALL: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_MLA: dict[str, Any] = _SMALL | {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 48,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", _SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": False}),
    "deepseek_v2": ("deepseek_v2", _MLA | {"topk_method": "greedy"}),
    "deepseek_v3": ("deepseek_v3", _MLA),
}
# Matrices of several blocks of 128, and experts whose rows are no whole blocks.
_BLOCKS = _MLA | {
    "hidden_size": 256,
    "intermediate_size": 320,
    "moe_intermediate_size": 192,
    "q_lora_rank": 144,
    "initializer_range": 0.1,
}
_OTHERS = {"deepseek_v3_blocks": ("deepseek_v3", _BLOCKS)}
TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 3
GROUP = 16
PROMPT = torch.tensor([[5, 77, 130, 200, 9, 41]])


@cache
def tiny_model(architecture: str) -> PreTrainedModel:
    """A model with random weights, the same ones each time."""
    kind, fields = (CONFIGS | _OTHERS)[architecture]
    torch.manual_seed(7)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **fields), dtype=torch.float32
    )
    model.eval()
    return model


def write_artefact(folder: Path, architecture: str) -> Manifest:
    """An artefact folder in the form that imports have: configuration, weights, tokenizer."""
    tiny_model(architecture).save_pretrained(folder)
    return complete(folder, architecture)


def complete(folder: Path, architecture: str) -> Manifest:
    """Tokenizer, template and manifest beside what lies in the folder already."""
    prompts = import_byte_level(folder.parent / "byte-level", context_length=128)
    for name in prompts.files:
        content = (folder.parent / "byte-level" / prompts.id / name).read_bytes()
        (folder / name).write_bytes(content)
    files = {p.name: file_entry(p) for p in sorted(folder.iterdir()) if p.name != "manifest.json"}
    weights = next(entry for name, entry in files.items() if name.endswith(".safetensors"))
    manifest = Manifest(
        id=weights.sha256[:16],
        digest=weights.sha256,
        name=f"tiny-{architecture}",
        format="safetensors",
        architecture=architecture,
        quantization="float32",
        context_length=128,
        vocab_size=258,
        bos_token_id=None,
        eos_token_ids=(1,),
        licence="MIT",
        provenance="made here",
        kv=None,
        files=files,
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return manifest


def write_checkpoint(
    folder: Path,
    architecture: str,
    settings: dict[str, Any],
    convert: Callable[[Tensor], tuple[dict[str, Tensor], Tensor]],
) -> dict[str, Tensor]:
    """An artefact in a publisher's format; gives the plain weights that it stands for."""
    tiny_model(architecture).save_pretrained(folder)
    plain = load_file(folder / "model.safetensors")
    tensors: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        owner, _, leaf = name.rpartition(".")
        packs = leaf == "weight" and name.endswith("_proj.weight") and tensor.shape[1] % GROUP == 0
        if packs and tensor.shape[0] % 8 == 0:
            converted, meant[name] = convert(tensor)
            tensors |= {f"{owner}.{part}": value for part, value in converted.items()}
        else:
            tensors[name] = meant[name] = tensor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    (folder / "config.json").write_bytes(
        msgspec.json.encode(config | {"quantization_config": settings})
    )
    complete(folder, architecture)
    return meant


def logits_of(model: Any) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=PROMPT, use_cache=False).logits.float()


def reference(folder: Path, architecture: str, meant: dict[str, Tensor]) -> Tensor:
    """Logits of transformers with the plain weights that the checkpoint stands for."""
    tiny_model(architecture).save_pretrained(folder)
    save_file(meant, folder / "model.safetensors", {"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return logits_of(model)
