"""Models of real shapes with random weights, made on the device: no file is read or written."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, PreTrainedModel

from inference.quantization.description import ModuleScheme
from inference.quantization.fp8 import BLOCK, FP8, Fp8, Fp8Weight
from inference.quantization.loading import use_kernels
from inference.quantization.modules import QuantizedExperts, QuantizedLinear
from inference.quantization.skeleton import finish, place, skeleton_of
from inference.quantization.writing import pack

PRECISIONS: Final = ("bf16", "int8", "fp8")
_GROUP: Final = 32
_LARGEST: Final = torch.finfo(FP8).max


@dataclass(frozen=True, slots=True)
class Shape:
    """An architecture of transformers, and its sizes."""

    name: str
    kind: str
    sizes: Mapping[str, Any]


_QWEN2_7B: Final = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
_SMALL_V3: Final = {
    "vocab_size": 32768,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "moe_intermediate_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "n_routed_experts": 32,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
}
FULL: Final = (
    Shape("r1_distill_qwen_7b", "qwen2", _QWEN2_7B),
    Shape("small_deepseek_v3", "deepseek_v3", _SMALL_V3),
)
_TINY: Final = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SMOKE: Final = (
    Shape("tiny_qwen2", "qwen2", _QWEN2_7B | _TINY | {"num_key_value_heads": 2}),
    Shape(
        "tiny_deepseek_v3",
        "deepseek_v3",
        _SMALL_V3
        | _TINY
        | {
            "moe_intermediate_size": 128,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "num_key_value_heads": 4,
            "q_lora_rank": 32,
            "kv_lora_rank": 32,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16,
            "v_head_dim": 32,
        },
    ),
)


def build(shape: Shape, precision: str, device: torch.device) -> PreTrainedModel:
    """The model, ready for inference, with activations in bfloat16."""
    config = AutoConfig.for_model(
        shape.kind, **shape.sizes, bos_token_id=None, eos_token_id=None, pad_token_id=None
    )
    model = skeleton_of(config, torch.bfloat16)
    generator = torch.Generator(device).manual_seed(1)
    for name, tensor in model.state_dict().items():
        place(model, name, _filled(name, tensor, generator))
    finish(model, device)
    if precision == "int8":
        pack(model, functools.partial(ModuleScheme, bits=8, group_size=_GROUP), lambda line: None)
    if precision == "fp8":
        _to_fp8(model)
    if precision != "bf16":
        use_kernels(model)
    return model


def _filled(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=generator.device)
    if name.endswith("norm.weight"):
        return made.fill_(1)
    return made.normal_(0, 0.02, generator=generator)


def _to_fp8(model: PreTrainedModel) -> None:
    """Linear layers and experts as DeepSeek-V3's checkpoints have them; the head stays."""
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not head:
            layer = QuantizedLinear(Fp8Weight(_in_blocks(module.weight.detach())), module.bias)
            model.set_submodule(name, layer)
        elif isinstance(getattr(module, "gate_up_proj", None), nn.Parameter):
            both: Any = module
            parts = [
                Fp8Weight(_in_blocks(part.detach())) for part in (both.gate_up_proj, both.down_proj)
            ]
            model.set_submodule(name, QuantizedExperts(*parts, both.act_fn))


def _in_blocks(weight: Tensor) -> Fp8:
    rows, columns = weight.shape[-2:]
    padded = functional.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))
    scale = blocks.abs().amax((-3, -1)).clamp(min=1e-10) / _LARGEST
    values = (blocks / scale[..., None, :, None]).to(FP8)
    flat = values.flatten(-2).flatten(-3, -2)
    return Fp8(flat[..., :rows, :columns].contiguous(), scale, (BLOCK, BLOCK))


def bytes_of_step(model: PreTrainedModel, rows: int) -> float:
    """Bytes of weights that generating a token for each of ``rows`` has to read.

    Of the embedding only rows are read; of the experts those that somebody was routed to, as many
    as there are if routes are even.
    """
    config = model.config.get_text_config()
    embedding, total = model.get_input_embeddings(), 0.0
    experts = getattr(config, "n_routed_experts", 0)
    for name, module in model.named_modules():
        if module is embedding or (embedding is not None and module in embedding.children()):
            continue
        share = 1.0
        if ".experts" in name:
            share = 1 - (1 - config.num_experts_per_tok / experts) ** rows
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        total += share * sum(tensor.nbytes for tensor in own)
    return total
