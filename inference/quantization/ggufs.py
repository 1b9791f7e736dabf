"""Turns a GGUF artefact into one with safetensors, whose weights are then packed anew."""

import hashlib
from pathlib import Path

import msgspec
import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from inference.artefacts import Manifest, verify
from inference.artefacts.manifest import file_entry
from inference.artefacts.publishing import TEMPLATE, TOKENIZER, WEIGHTS, link, publish
from inference.quantization.quality import Progress
from inference.quantization.skeleton import finish, place, skeleton_of
from portal.core.errors import Invalid


def dequantized_folder(source: Path, store: Path, progress: Progress) -> Path:
    """The artefact with a GGUF artefact's weights as fp32, made in the store once.

    Precision that the GGUF file has lost stays lost.

    Raises:
        NotFound, Invalid: the source is damaged, or transformers does not know its architecture.
    """
    manifest = verify(source)
    if manifest.format != "gguf":
        raise Invalid(f"The artefact {manifest.name} is {manifest.format}, not GGUF.")
    artefact_id = hashlib.sha256(f"dequantized\n{manifest.digest}".encode()).hexdigest()[:16]

    def fill(folder: Path) -> Manifest:
        progress(f"dequantize {manifest.name}, once")
        _load(source).save_pretrained(folder)
        for name in (TOKENIZER, TEMPLATE):
            link(source / name, folder / name)
        files = {path.name: file_entry(path) for path in sorted(folder.iterdir())}
        weights = "".join(e.sha256 for name, e in files.items() if name.endswith(".safetensors"))
        return msgspec.structs.replace(
            manifest,
            id=artefact_id,
            digest=hashlib.sha256(weights.encode()).hexdigest(),
            format="safetensors",
            quantization=f"{manifest.quantization} as F32",
            files=files,
        )

    publish(store, artefact_id, fill)
    return store / artefact_id


def _load(source: Path) -> PreTrainedModel:
    # transformers' own way, from_pretrained(gguf_file=...), wants accelerate for no need of ours.
    try:
        config = AutoConfig.from_pretrained(source, gguf_file=WEIGHTS, local_files_only=True)
        model = skeleton_of(config, torch.float32)
        read = load_gguf_checkpoint(str(source / WEIGHTS), return_tensors=True, model_to_load=model)
    except (ValueError, OSError, KeyError, NotImplementedError) as fault:
        raise Invalid(f"The GGUF file in {source} cannot be dequantized: {fault}") from None
    for name, tensor in read["tensors"].items():
        place(model, name, tensor)
    finish(model, torch.device("cpu"))
    return model
