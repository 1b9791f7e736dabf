"""Whether a model can be split over the ranks of a tensor-parallel group, before any is started."""

import math
import re
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel

from inference.engines.torch_batch.options import MOST_RANKS
from inference.quantization.loading import is_packed
from inference.quantization.skeleton import skeleton_of
from portal.core.errors import Invalid

_KEYS = ("k_proj", "qkv_proj", "query_key_value")  # whose outputs are the heads of keys
_ATTENTION = re.compile(r"attn|attention")


def check_split(artefact_dir: Path, *, name: str, ranks: int, device: torch.device) -> None:
    """Refuses a number of ranks that the model or the machine does not allow.

    Raises:
        Invalid: naming the model, what can't be divided, and the numbers of ranks that can be.
    """
    if is_packed(artefact_dir):
        raise Invalid(
            f"The weights of {name} are quantized, and those can't be split over ranks: set"
            " tensor_parallel to 1, or serve the artefact that they were made of.",
            param="options",
        )
    sizes = _sizes(artefact_dir, name)
    wrong = [f"{what} ({size})" for what, size in sizes.items() if size % ranks]
    if wrong:
        raise Invalid(
            f"{name} can't be split over {ranks} ranks: {', '.join(wrong)} can't be divided."
            f" tensor_parallel may be {_possible(math.gcd(*sizes.values()))}.",
            param="options",
        )
    _check_machine(ranks, device)


def _check_machine(ranks: int, device: torch.device) -> None:
    seen = torch.cuda.device_count()
    if device.type == "cuda" and seen < ranks:
        raise Invalid(
            f"tensor_parallel is {ranks}, and torch sees {seen} accelerators.", param="options"
        )
    if device.type == "cpu" and seen:
        raise Invalid(
            "A model is split over CPUs only where torch sees no accelerator: hide it with"
            " CUDA_VISIBLE_DEVICES=-1, or set device to cuda.",
            param="options",
        )


def _sizes(artefact_dir: Path, name: str) -> dict[str, int]:
    try:
        config = AutoConfig.from_pretrained(artefact_dir, local_files_only=True)
        model = skeleton_of(config, torch.bfloat16)
    except (OSError, ValueError, KeyError) as fault:
        raise Invalid(f"The configuration of {name} cannot be used: {fault}") from None
    sizes = split_sizes(model)
    if not sizes:
        raise Invalid(
            f"transformers has no plan to split {name} ({config.model_type}) over ranks: set"
            " tensor_parallel to 1.",
            param="options",
        )
    return sizes


def split_sizes(model: PreTrainedModel) -> dict[str, int]:
    """What the model's own plan divides, by name: numbers of heads, and widths of layers.

    Layers that are gathered again, such as the output layer, may be divided unevenly.
    """
    plan, config = model.tp_plan, model.config.get_text_config()
    colwise = {rule for rule, style in plan.items() if style == "colwise"}
    sizes = {}
    if any(_ATTENTION.search(rule) for rule in colwise):
        sizes["num_attention_heads"] = config.num_attention_heads
    if any(rule.endswith(_KEYS) for rule in colwise):
        sizes["num_key_value_heads"] = config.num_key_value_heads
    for name, weight in model.named_parameters():
        rule = re.sub(r"\d+", "*", name)
        layer = rule.rpartition(".")[0]
        # What a layer divided column by column gives, the next takes row by row.
        if weight.dim() > 1 and "rowwise" in (plan.get(rule), plan.get(layer)):
            sizes[layer.rpartition("*.")[2]] = weight.shape[-1]
    return sizes


def _possible(common: int) -> str:
    return ", ".join(str(n) for n in range(1, MOST_RANKS + 1) if common % n == 0)
