"""What publishers' checkpoints have in common: tensors by module, and experts that lie apart."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.quantization.shards import read_tensors
from inference.quantization.skeleton import place
from portal.core.errors import Invalid

Raw = dict[str, Tensor]
EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(gate|up|down)_proj")
"""A matrix of one expert; models keep those of all experts together."""
_LAYER = re.compile(r".+\.layers\.\d+(?=\.)")


def read_owners(model: PreTrainedModel, folder: Path, device: torch.device) -> dict[str, Raw]:
    """The folder's tensors by module, then by their own names.

    What the architecture has no place for by design is left out: DeepSeek-V3's checkpoints have a
    layer more than the model, for predicting several tokens at once.

    Raises:
        NotFound, Invalid: as ``read_tensors``.
    """
    extra = [re.compile(words) for words in model._keys_to_ignore_on_load_unexpected or ()]
    owners: dict[str, Raw] = {}
    for name, tensor in read_tensors(folder, device):
        owner, _, leaf = name.rpartition(".")
        if not any(words.search(name) for words in extra) or _is_there(model, owner):
            owners.setdefault(owner, {})[leaf] = tensor
    return owners


def _is_there(model: PreTrainedModel, owner: str) -> bool:
    layer = _LAYER.match(f"{owner}.")
    try:
        model.get_submodule(layer[0] if layer else owner)
    except AttributeError:
        return False
    return True


def place_plain(model: PreTrainedModel, owners: dict[str, Raw]) -> None:
    """Puts tensors that are not packed into the model and takes them out of ``owners``.

    Raises:
        Invalid: the model has no such tensor, or one of another shape.
    """
    experts: dict[str, dict[tuple[int, str], Tensor]] = {}
    for owner in list(owners):
        raw, match = owners.pop(owner), EXPERT.fullmatch(owner)
        if match and "weight" in raw:
            experts.setdefault(match[1], {})[int(match[2]), match[3]] = raw["weight"]
            continue
        for leaf, tensor in raw.items():
            place(model, f"{owner}.{leaf}", tensor)
    for owner in list(experts):
        gates, ups, downs = in_order(owner, experts.pop(owner))
        fused = [torch.cat(pair) for pair in zip(gates, ups, strict=True)]
        place(model, f"{owner}.gate_up_proj", torch.stack(fused))
        place(model, f"{owner}.down_proj", torch.stack(downs))


def in_order(owner: str, found: dict[tuple[int, str], Any]) -> tuple[list[Any], ...]:
    """Gate, up and down of each expert in order.

    Raises:
        Invalid: one is missing.
    """
    count = max(number for number, _ in found) + 1
    try:
        return tuple([found[n, part] for n in range(count)] for part in ("gate", "up", "down"))
    except KeyError as missing:
        raise Invalid(f"The artefact lacks weights of {owner}: {missing}.") from None


def need(owner: str, raw: Raw, *names: str) -> None:
    """Raises Invalid, naming the first tensor that a module lacks."""
    missing = [name for name in names if name not in raw]
    if missing:
        raise Invalid(f"The artefact lacks the tensor {owner}.{missing[0]}.")
