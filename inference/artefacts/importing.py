"""Imports a model from wherever it is: a GGUF file, a folder."""

from pathlib import Path

from inference.artefacts.folder import import_folder
from inference.artefacts.manifest import Manifest, Progress
from inference.artefacts.store import import_gguf


def import_model(
    source: Path,
    store: Path,
    *,
    name: str,
    licence: str | None = None,
    provenance: str | None = None,
    template: str | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Import a GGUF file, or a folder with safetensors or OpenVINO's format.

    Args:
        licence: what the model says of itself if not given.
        provenance: the source's own path if not given.
        template: chat template; the model's own if not given.
        progress: told while files are read.

    Raises:
        NotFound: nothing is there.
        Invalid: naming the file that is missing, damaged or not supported; no licence.
    """
    take = import_folder if source.is_dir() else import_gguf
    return take(
        source,
        store,
        name=name,
        licence=licence,
        provenance=provenance or str(source.resolve()),
        template=template,
        progress=progress,
    )
