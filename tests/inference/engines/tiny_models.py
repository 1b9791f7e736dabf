"""Artefacts with tiny models, made from a configuration and a seed: a token a byte."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from inference.artefacts import Manifest, import_byte_level

CONTEXT = 512
END = 1  # <|im_end|> of the byte-level vocabulary
_VOCABULARY = 258
# Wide weights, so that the likeliest token stands out and rounding does not choose.
_COMMON: dict[str, Any] = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.4,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_MLA: dict[str, Any] = _COMMON | {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}


def _deepseek_v2() -> PreTrainedModel:
    return DeepseekV2ForCausalLM(DeepseekV2Config(**_MLA, topk_method="greedy"))


def _deepseek_v3() -> PreTrainedModel:
    return DeepseekV3ForCausalLM(DeepseekV3Config(**_MLA))


def _qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**_COMMON, num_key_value_heads=2))


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_COMMON, num_key_value_heads=1))


def _wide() -> PreTrainedModel:
    """8192 bytes a token of the cache."""
    return LlamaForCausalLM(LlamaConfig(**_COMMON, num_key_value_heads=4, head_dim=128))


def _sliding() -> PreTrainedModel:
    config = MistralConfig(**_COMMON, num_key_value_heads=2, head_dim=8, sliding_window=16)
    return MistralForCausalLM(config)


def _dynamic_rope() -> PreTrainedModel:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    return LlamaForCausalLM(LlamaConfig(**_COMMON, num_key_value_heads=1, rope_parameters=rope))


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "llama": _llama,
    "qwen2": _qwen2,
}
_OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "dynamic_rope": _dynamic_rope,
    "sliding": _sliding,
    "wide": _wide,
}


def tiny_model(family: str) -> PreTrainedModel:
    """The same weights at every call, in 32 bits."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return (FAMILIES | _OTHERS)[family]().eval()


def greedy(model: PreTrainedModel, prompt: Sequence[int], tokens: int) -> list[int]:
    """What transformers itself generates."""
    ids = torch.tensor([list(prompt)])
    answer = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return list(answer[0, len(prompt) :].tolist())


def save_tiny(folder: Path, family: str, *, eos: tuple[int, ...] = (END,)) -> Path:
    """An artefact folder with ``tiny_model(family)``."""
    made = import_byte_level(folder, context_length=CONTEXT)
    artefact = folder / made.id
    tiny_model(family).save_pretrained(artefact)
    manifest: Manifest = msgspec.structs.replace(
        made, format="safetensors", architecture=family, name=f"tiny-{family}", eos_token_ids=eos
    )
    (artefact / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return artefact
