"""Model artefacts: folders with weights, tokenizer, chat template and a manifest of hashes."""

from inference.artefacts.manifest import FileEntry, KvGeometry, Manifest, load_manifest, verify
from inference.artefacts.store import import_byte_level, import_gguf, shipped_gguf

__all__ = [
    "FileEntry",
    "KvGeometry",
    "Manifest",
    "import_byte_level",
    "import_gguf",
    "load_manifest",
    "shipped_gguf",
    "verify",
]
