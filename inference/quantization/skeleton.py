"""Models without weights, whose modules are replaced and then filled tensor by tensor."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.moe import _default_apply_gate

from inference.quantization.description import Kind, ModuleScheme
from inference.quantization.modules import (
    PackedWeight,
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
)
from inference.quantization.packing import Packed
from portal.core.errors import Invalid

_EXPERT_WEIGHTS = ("gate_up_proj", "down_proj")


def build_skeleton(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model that a folder's ``config.json`` describes, on the meta device.

    Raises:
        Invalid: no configuration, or of an architecture that is not known.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        return skeleton_of(config, dtype)
    except (ValueError, OSError, KeyError) as fault:
        raise Invalid(f"The configuration in {folder} cannot be used: {fault}") from None


def skeleton_of(config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a configuration, on the meta device; the weights' format is forgotten."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.eval()
    return model


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output layer shares the embedding's weights."""
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))


def quantizable(model: PreTrainedModel) -> Iterator[tuple[str, Kind]]:
    """The modules whose weights are packed, and as what.

    Raises:
        Invalid: experts of a shape that is not supported.
    """
    embedding, head = model.get_input_embeddings(), output_layer(model)
    for name, module in model.named_modules():
        if module is head and is_tied(model):
            yield name, "tied"
        elif module is embedding:
            yield name, "embedding"
        elif isinstance(module, nn.Linear):
            yield name, "linear"
        elif isinstance(getattr(module, "gate_up_proj", None), nn.Parameter):
            check_experts(name, module)
            yield name, "experts"


def output_layer(model: PreTrainedModel) -> nn.Module | None:
    """The layer that gives logits."""
    return model.get_output_embeddings()


def check_experts(name: str, module: Any) -> None:
    """Raises Invalid where experts compute otherwise than ``QuantizedExperts`` does."""
    usual = (
        getattr(module, "is_concatenated", True)
        and not getattr(module, "is_transposed", False)
        and not getattr(module, "has_bias", False)
        and getattr(type(module), "_apply_gate", None) is _default_apply_gate
        and module.gate_up_proj.dim() == 3
    )
    if not usual:
        raise Invalid(f"Experts such as {name} ({type(module).__name__}) can't be quantized yet.")


def replace_modules(
    model: PreTrainedModel, schemes: Mapping[str, ModuleScheme], packed: Mapping[str, Packed]
) -> None:
    """Puts quantized modules in the place of those that are named.

    Args:
        packed: the weights by module, of experts by module and weight.

    Raises:
        Invalid: a module is not there, or its weights are not of its shape.
    """
    dtype = model.dtype
    for name, scheme in schemes.items():
        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise Invalid(f"The model has no module {name}, which is said to be packed.") from None
        if scheme.kind != "tied":
            model.set_submodule(name, _replacement(name, module, scheme, packed, dtype))
    for name, scheme in schemes.items():
        if scheme.kind == "tied":
            embedding = model.get_input_embeddings()
            if not isinstance(embedding, QuantizedEmbedding):
                raise Invalid(f"{name} is said to share weights that are not packed.")
            model.set_submodule(name, QuantizedLinear(embedding.packed, None))


def _replacement(
    name: str,
    module: Any,
    scheme: ModuleScheme,
    packed: Mapping[str, Packed],
    dtype: torch.dtype,
) -> nn.Module:
    if scheme.kind == "experts":
        gate_up, down = (
            _weight(f"{name}.{part}", getattr(module, part), scheme, packed)
            for part in _EXPERT_WEIGHTS
        )
        return QuantizedExperts(gate_up, down, module.act_fn)
    weight = _weight(f"{name}.packed", module.weight, scheme, packed)
    if scheme.kind == "embedding":
        return QuantizedEmbedding(weight, dtype)
    return QuantizedLinear(weight, module.bias)


def _weight(
    name: str, weight: Any, scheme: ModuleScheme, packed: Mapping[str, Packed]
) -> PackedWeight:
    if name not in packed:
        raise Invalid(f"The packed weights {name} are missing.")
    found, shape = packed[name], weight.shape
    padded = -(-shape[-1] // scheme.group_size) * scheme.group_size
    wanted = (*shape[:-1], padded * scheme.bits // 8)
    groups = (*shape[:-1], padded // scheme.group_size)
    wrong = (
        found.bits != scheme.bits
        or found.values.shape != wanted
        or found.scale.shape != groups
        or (found.offset is not None and found.offset.shape != groups)
        or (found.order is not None and found.order.shape != (*shape[:-2], shape[-1]))
    )
    if wrong:
        raise Invalid(f"The packed weights {name} are not of the model's shape.")
    return PackedWeight(shape, found)


def place(model: PreTrainedModel, name: str, tensor: Tensor) -> None:
    """Puts a tensor that is not packed where it belongs, in the model's type.

    Raises:
        Invalid: the model has no such tensor, or one of another shape.
    """
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
        parameter = module._parameters.get(leaf)
        there = module._buffers[leaf] if parameter is None else parameter
    except (AttributeError, KeyError):
        raise Invalid(f"The model has no tensor {name}, which is in the artefact.") from None
    if there is None or there.shape != tensor.shape:
        raise Invalid(f"The tensor {name} is not of the model's shape.")
    value = tensor.to(_type_of(model, name, there.dtype) if tensor.is_floating_point() else None)
    if leaf in module._parameters:
        value = nn.Parameter(value, requires_grad=False)
    setattr(module, leaf, value)


def _type_of(model: PreTrainedModel, name: str, dtype: torch.dtype) -> torch.dtype:
    exact = (
        *(model._keep_in_fp32_modules or ()),
        *(model._keep_in_fp32_modules_strict or ()),
    )
    return torch.float32 if any(part in name for part in exact) else dtype


def finish(model: PreTrainedModel, device: torch.device) -> None:
    """Ties what is tied, computes what no file holds, and finds what is missing.

    Raises:
        Invalid: naming tensors that the artefact lacks.
    """
    head, embedding = output_layer(model), model.get_input_embeddings()
    if is_tied(model) and isinstance(head, nn.Linear):
        head.register_parameter("weight", embedding.get_parameter("weight"))
    for module in model.modules():
        computed = module._non_persistent_buffers_set
        if any(_is_meta(module._buffers[name]) for name in computed):
            module.to_empty(device=device, recurse=False)
            model._init_weights(module)
    named = (*model.named_parameters(), *model.named_buffers())
    missing = [name for name, tensor in named if _is_meta(tensor)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Invalid(f"The artefact lacks the tensor {missing[0]}{more}.")


def _is_meta(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.device.type == "meta"
