"""Imports a model from wherever it is: a GGUF file, a folder; or what one leaves here."""

import json
from pathlib import Path
from typing import Any, Final, Literal

from inference.artefacts import openvino_ir
from inference.artefacts.cards import licence_of_folder, require_licence
from inference.artefacts.embedding import SENTENCE_FILES, import_transformer
from inference.artefacts.folder import CONFIG, has_template, import_folder
from inference.artefacts.manifest import Manifest, Progress
from inference.artefacts.remote import import_tokenizer
from inference.artefacts.store import import_gguf
from portal.core.errors import Invalid

Does = Literal["generate", "embed", "rerank"]
"""What a model does, as ``inference.models.Task`` has it."""

_GENERATES: Final = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
_RANKS: Final = "ForSequenceClassification"


def import_model(
    source: Path,
    store: Path,
    *,
    name: str,
    licence: str | None = None,
    provenance: str | None = None,
    template: str | None = None,
    does: Does | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Import a GGUF file, or a folder with safetensors or OpenVINO's format.

    Args:
        licence: what the model says of itself if not given.
        provenance: the source's own path if not given.
        template: chat template; the model's own if not given.
        does: what the model does; told from its files if not given.
        progress: told while files are read.

    Raises:
        NotFound: nothing is there.
        Invalid: naming the file that is missing, damaged or not supported; no licence; what it
            does can't be told, or not be served.
    """
    provenance = provenance or str(source.resolve())
    if not source.is_dir():
        if does not in (None, "generate"):
            raise Invalid(
                "No engine here embeds or ranks with a GGUF file: serve it by llama.cpp, and "
                "import the folder of its tokenizer (--tokenizer-only)."
            )
        take = import_gguf
    else:
        does = does or what_it_does(source)
        if does != "generate":
            return _import_encoder(source, store, name, licence, provenance, does)
        take = import_folder
    return take(
        source,
        store,
        name=name,
        licence=licence,
        provenance=provenance,
        template=template,
        progress=progress,
    )


def import_for_elsewhere(
    source: Path,
    store: Path,
    *,
    name: str,
    licence: str | None = None,
    provenance: str | None = None,
    template: str | None = None,
    does: Does | None = None,
    context_length: int | None = None,
) -> Manifest:
    """Import what a model that is served elsewhere leaves here: tokenizer and configurations.

    Weights that lie in the folder are not read. Arguments are those of ``import_model``.

    Args:
        context_length: most tokens that the server takes; the model's own if not given.

    Raises:
        NotFound: a file is missing.
        Invalid: no folder, or a file that can't be used; no licence; what it does can't be told.
    """
    if not source.is_dir():
        raise Invalid(
            f"{source} is no folder: the tokenizer alone is taken out of a folder with "
            "tokenizer.json and config.json."
        )
    does = does or what_it_does(source)
    licence = require_licence(licence, licence_of_folder(source))
    provenance = provenance or str(source.resolve())
    if does == "generate":
        return import_tokenizer(
            source,
            store,
            name=name,
            licence=licence,
            provenance=provenance,
            template=template,
            context_length=context_length,
        )
    if template is not None or context_length is not None:
        raise Invalid(
            "A model that embeds or ranks has no chat template, and its files say its context "
            "length: give its deployment a shorter one instead."
        )
    return import_transformer(
        source,
        store,
        name=name,
        licence=licence,
        provenance=provenance,
        weights=False,
        pairs=does == "rerank",
    )


def what_it_does(source: Path) -> Does:
    """What the model in a folder does, by what its files say.

    Raises:
        Invalid: they don't say.
    """
    if openvino_ir.is_there(source):
        return "generate"
    if any((source / name).is_file() for name in SENTENCE_FILES):
        return "embed"
    names = _architectures(source)
    if any(name.endswith(_RANKS) for name in names):
        return "rerank"
    if any(name.endswith(_GENERATES) for name in names) or has_template(source):
        return "generate"
    raise Invalid(
        f"{source / CONFIG} does not say what the model does: say --task generation, embedding "
        "or rerank.",
        param="task",
    )


def _import_encoder(
    source: Path, store: Path, name: str, licence: str | None, provenance: str, does: Does
) -> Manifest:
    ranks = any(architecture.endswith(_RANKS) for architecture in _architectures(source))
    if ranks != (does == "rerank"):
        found = "ranks documents" if ranks else "is no cross-encoder"
        raise Invalid(
            f"The model in {source} {found}, by its architecture: the engine can't do otherwise "
            "with its weights. Served elsewhere it may (--tokenizer-only)."
        )
    return import_transformer(
        source,
        store,
        name=name,
        licence=require_licence(licence, licence_of_folder(source)),
        provenance=provenance,
    )


def _architectures(source: Path) -> list[str]:
    path = source / CONFIG
    try:
        config: Any = json.loads(path.read_bytes())
        return [str(name) for name in config.get("architectures") or ()]
    except FileNotFoundError:
        raise Invalid(f"{path} is missing.") from None
    except (ValueError, AttributeError, TypeError):
        raise Invalid(f"{path} is no JSON object.") from None
