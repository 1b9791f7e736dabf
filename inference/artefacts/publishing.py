"""How an artefact's folder comes to be: at once and whole, under the name of its content."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from inference.artefacts.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    Progress,
    file_entry,
    load_manifest,
    verify,
)
from portal.core.errors import Invalid, NotFound

WEIGHTS, TOKENIZER, TEMPLATE = "model.gguf", "tokenizer.json", "chat_template.jinja"
ID_LENGTH = 16


def publish(
    store: Path,
    artefact_id: str,
    fill: Callable[[Path], Manifest],
    progress: Progress | None = None,
) -> Manifest:
    """Fill a temporary folder and move it to its name, unless a good one is there."""
    target = store / artefact_id
    if target.exists():
        try:
            return verify(target, progress)
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


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy across file systems."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def write_prompt_files(folder: Path, tokenizer: Tokenizer, template: str) -> None:
    """What renders and counts prompts."""
    (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / TEMPLATE).write_text(template, encoding="utf-8", newline="")


def prompt_entries(folder: Path) -> dict[str, FileEntry]:
    """Entries of what ``write_prompt_files`` wrote."""
    return {name: file_entry(folder / name) for name in (TOKENIZER, TEMPLATE)}
