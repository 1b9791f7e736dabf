"""Imports model folders: as Hugging Face lays them out, and in OpenVINO's own format.

Both have ``config.json``, a tokenizer and a chat template beside the weights. Code that lies there
(``*.py``) and pickled weights are never taken.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from inference.artefacts import openvino_ir, safetensors
from inference.artefacts.cards import licence_of_folder, require_licence
from inference.artefacts.manifest import (
    FileEntry,
    KvGeometry,
    Manifest,
    Progress,
    digest_of,
    file_entry,
)
from inference.artefacts.publishing import ID_LENGTH, TEMPLATE, TOKENIZER, link, publish
from inference.artefacts.sentencepiece import read_model
from inference.artefacts.tokenizer import known_end_tokens
from inference.artefacts.vocabulary import (
    read_vocabulary,
    refuse_reachable_control,
    without_reachable_control,
)
from portal.core.errors import Invalid, NotFound

CONFIG, GENERATION, TOKENIZER_CONFIG = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
)
SENTENCEPIECE = "tokenizer.model"
_MODELOPT = "hf_quant_config.json"  # the weights' format, where config.json says nothing of it
_BESIDE = (GENERATION, TOKENIZER_CONFIG, _MODELOPT, "special_tokens_map.json", "README.md")
_LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*")
# What architectures call the same thing in config.json.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_HEADS = ("num_attention_heads", "n_head")
_HIDDEN = ("hidden_size", "n_embd", "d_model")


def file_patterns() -> tuple[str, ...]:
    """What a folder with safetensors may bring, for those who fetch one: names, with ``*``."""
    needed = (CONFIG, TOKENIZER, SENTENCEPIECE, TEMPLATE, safetensors.INDEX, "*.safetensors")
    return (*needed, *_BESIDE, *_LICENCE_FILES)


def has_template(source: Path) -> bool:
    """Whether a folder has a chat template."""
    settings = _json(source / TOKENIZER_CONFIG) or {}
    return (source / TEMPLATE).is_file() or "chat_template" in settings


@dataclass(frozen=True, slots=True)
class _Folder:
    """What a model's folder says of itself."""

    path: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    tokenizer_config: dict[str, Any]
    tokenizer: Tokenizer
    converted: bool
    template: str

    @property
    def text_config(self) -> dict[str, Any]:
        inner = self.config.get("text_config")
        return self.config | inner if isinstance(inner, dict) else self.config


def import_folder(
    source: Path,
    store: Path,
    *,
    name: str,
    licence: str | None = None,
    provenance: str,
    template: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Import a folder with safetensors or OpenVINO's format; the same content again does nothing.

    The folder ``<store>/<id>`` appears at once and whole. Files are hard-linked where possible.

    Args:
        licence: the one that README.md names if not given.
        template: chat template; the folder's own if not given.

    Raises:
        NotFound: no such folder.
        Invalid: naming the file that is missing, damaged or not supported; no licence.
    """
    if not source.is_dir():
        raise NotFound(f"There is no folder {source}.")
    is_ir = openvino_ir.is_there(source)
    weights = openvino_ir.weight_files(source) if is_ir else safetensors.weight_files(source)
    folder = _read(source, template)
    licence = require_licence(licence, licence_of_folder(source))
    facts = _facts(folder)
    entries = {
        file: file_entry(source / file, progress)
        for file in (*weights, CONFIG, *_optional(source), *_tokenizer_files(folder))
    }
    chat = folder.template.encode()
    digest = digest_of(
        [*entries.items(), (TEMPLATE, FileEntry(hashlib.sha256(chat).hexdigest(), len(chat)))]
    )

    def fill(target: Path) -> Manifest:
        for file in entries:
            link(source / file, target / file)
        written = _write_prompt_files(folder, target)
        return Manifest(
            id=digest[:ID_LENGTH],
            digest=digest,
            name=name,
            format="openvino" if is_ir else "safetensors",
            quantization=openvino_ir.precision(source) if is_ir else _quantization(folder.config),
            licence=licence,
            provenance=provenance,
            files=entries | written,
            **facts,
        )

    return publish(store, digest[:ID_LENGTH], fill, progress)


def _read(path: Path, template: str | None) -> _Folder:
    config = _json(path / CONFIG)
    if config is None:
        raise Invalid(f"{path / CONFIG} is missing.")
    if _json(path / _MODELOPT) is not None:
        config.setdefault("quantization_config", {"quant_method": "modelopt"})
    tokenizer_config = _json(path / TOKENIZER_CONFIG) or {}
    tokenizer, converted = _tokenizer(path)
    return _Folder(
        path=path,
        config=config,
        generation=_json(path / GENERATION) or {},
        tokenizer_config=tokenizer_config,
        tokenizer=tokenizer,
        converted=converted,
        template=template if template is not None else _template(path, tokenizer_config),
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Invalid(f"{path} is no JSON object: {fault}.") from None


def _tokenizer(path: Path) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether it differs from the folder's own ``tokenizer.json``."""
    file, model = path / TOKENIZER, path / SENTENCEPIECE
    if not file.is_file() and not model.is_file():
        raise Invalid(f"{file} is missing, and {SENTENCEPIECE} too.")
    if not file.is_file():
        return _checked(read_model(model.read_bytes()), model), True
    try:
        given = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as fault:
        raise Invalid(f"{file} is damaged: {fault}.") from None
    except Exception as fault:
        # The tokenizers library raises bare Exception; anything else is a fault of ours.
        if type(fault) is not Exception:
            raise
        raise Invalid(f"{file} is damaged: {fault}.") from None
    safe = without_reachable_control(given)
    return _checked(safe, file), safe is not given


def _checked(tokenizer: Tokenizer, file: Path) -> Tokenizer:
    try:
        read_vocabulary(tokenizer)
        refuse_reachable_control(tokenizer)
    except Invalid as fault:
        raise Invalid(f"{file}: {fault.message}") from None
    return tokenizer


def _template(path: Path, tokenizer_config: Mapping[str, Any]) -> str:
    file = path / TEMPLATE
    if file.is_file():
        try:
            return file.read_bytes().decode()
        except UnicodeDecodeError as fault:
            raise Invalid(f"{file} is damaged: {fault}.") from None
    found = tokenizer_config.get("chat_template")
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    if not isinstance(found, str):
        raise Invalid(
            f"{path} has no chat template: {TEMPLATE} is missing, and {TOKENIZER_CONFIG} has none. "
            "Give one (--chat-template).",
            param="template",
        )
    return found


def _optional(path: Path) -> tuple[str, ...]:
    licences = sorted(
        found.name for glob in _LICENCE_FILES for found in path.glob(glob) if found.is_file()
    )
    own = openvino_ir.optional_files(path)
    return (*(name for name in _BESIDE if (path / name).is_file()), *own, *licences)


def _tokenizer_files(folder: _Folder) -> tuple[str, ...]:
    """The files of the tokenizer that are taken as they are."""
    kept = (SENTENCEPIECE,) if folder.converted else (TOKENIZER, SENTENCEPIECE)
    return tuple(name for name in kept if (folder.path / name).is_file())


def _write_prompt_files(folder: _Folder, target: Path) -> dict[str, FileEntry]:
    """Writes tokenizer and template where the folder has them in another form."""
    (target / TEMPLATE).write_text(folder.template, encoding="utf-8", newline="")
    written = {TEMPLATE: file_entry(target / TEMPLATE)}
    if folder.converted:
        (target / TOKENIZER).write_text(folder.tokenizer.to_str(), encoding="utf-8")
        written[TOKENIZER] = file_entry(target / TOKENIZER)
    return written


def _quantization(config: Mapping[str, Any]) -> str:
    method = config.get("quantization_config")
    if isinstance(method, dict):
        return str(method.get("quant_method", "unknown")).upper()
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "unknown")
    names = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
    return names.get(dtype.removeprefix("torch."), dtype)


def _facts(folder: _Folder) -> dict[str, Any]:
    config = folder.text_config
    name = folder.config.get("model_type")
    if not isinstance(name, str) or not name:
        raise Invalid(f"{folder.path / CONFIG} does not say 'model_type'.")
    return {
        "architecture": name,
        "context_length": _number(folder, config, _CONTEXT),
        "vocab_size": _number(folder, config, ("vocab_size",)),
        "bos_token_id": _bos(folder),
        "eos_token_ids": _eos(folder),
        "kv": _kv(folder, config),
    }


def _number(folder: _Folder, config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    found = next((config[name] for name in names if name in config), None)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise Invalid(f"{folder.path / CONFIG} does not say '{names[0]}'.")
    return found


def _kv(folder: _Folder, config: Mapping[str, Any]) -> KvGeometry | None:
    if config.get("kv_lora_rank"):
        return None
    layers, heads = (_number(folder, config, names) for names in (_LAYERS, _HEADS))
    head_dim = config.get("head_dim") or _number(folder, config, _HIDDEN) // heads
    return KvGeometry(layers, config.get("num_key_value_heads") or heads, head_dim)


def _bos(folder: _Folder) -> int | None:
    for source in (folder.generation, folder.text_config):
        if isinstance(source.get("bos_token_id"), int):
            return int(source["bos_token_id"])
    return _named(folder, "bos_token")


def _eos(folder: _Folder) -> tuple[int, ...]:
    """Declared ends, the generation's own first, and the well-known ones of the vocabulary."""
    found: dict[int, None] = {}
    for source in (folder.generation, folder.text_config):
        ids = source.get("eos_token_id")
        for token_id in ids if isinstance(ids, list) else [ids]:
            if isinstance(token_id, int):
                found[token_id] = None
    named = _named(folder, "eos_token")
    if named is not None:
        found[named] = None
    found |= dict.fromkeys(known_end_tokens(folder.tokenizer))
    if not found:
        raise Invalid(f"{folder.path / CONFIG} does not say 'eos_token_id'.")
    return tuple(found)


def _named(folder: _Folder, name: str) -> int | None:
    token = folder.tokenizer_config.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str):
        return None
    token_id: int | None = folder.tokenizer.token_to_id(text)
    return token_id
