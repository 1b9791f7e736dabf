"""Licences: what a model's own files say of theirs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portal.core.errors import Invalid

_MOST_CARD = 1 << 20  # bytes of a README that are looked at
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_ENTRY = re.compile(
    r"""^(license|license_name):[ \t]*["']?([^\s"'\[\]{}#]+)["']?[ \t]*$""", re.MULTILINE
)


def licence_of_folder(folder: Path) -> str:
    """The licence that the front matter of ``README.md`` names; empty where it names none."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(_MOST_CARD).decode(errors="replace")
    except OSError:
        return ""
    matter = _FRONT_MATTER.match(text)
    found: dict[str, str] = dict(_ENTRY.findall(matter[1])) if matter else {}
    licence = found.get("license", "")
    return found.get("license_name", "") if licence in ("other", "unknown") else licence


def licence_of_gguf(metadata: Mapping[str, Any]) -> str:
    """The licence that a GGUF file's metadata name; empty where they name none."""
    licence = metadata.get("general.license")
    return licence if isinstance(licence, str) else ""


def require_licence(given: str | None, found: str) -> str:
    """The licence as given, else as found.

    Raises:
        Invalid: neither.
    """
    licence = given or found
    if not licence:
        raise Invalid(
            "The model does not say its licence; give it, such as Apache-2.0.", param="licence"
        )
    return licence
