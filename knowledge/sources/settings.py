"""What a source is told, checked: a structure for each kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from knowledge.models import SourceKind
from portal.core.env import env
from portal.core.errors import Invalid

MOST_PATH_CHARS: Final = 400
MOST_PATTERN_CHARS: Final = 400


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder below the root that the operator gave to the tenant.

    Attributes:
        path: below the root; empty for the root itself.
        include: patterns of names or paths, by commas; empty for every file.
    """

    path: str = ""
    include: str = ""


KINDS: Final[Mapping[str, type[FolderSettings]]] = {SourceKind.FOLDER: FolderSettings}


def read_settings(kind: str, given: Mapping[str, Any]) -> FolderSettings:
    """The settings of a source of this kind.

    Raises:
        Invalid: naming what is wrong.
    """
    if kind not in KINDS:
        raise Invalid(f"'kind' must be one of {', '.join(KINDS)}.", param="kind")
    try:
        settings = msgspec.convert(given, KINDS[kind])
    except msgspec.ValidationError as fault:
        raise Invalid(
            f"'settings' are not those of this kind: {fault}.", param="settings"
        ) from None
    return _folder(settings)


def _folder(settings: FolderSettings) -> FolderSettings:
    for name, most in (("path", MOST_PATH_CHARS), ("include", MOST_PATTERN_CHARS)):
        value = getattr(settings, name)
        if len(value) > most or not value.isprintable():
            raise Invalid(f"'{name}' may have {most} printable characters.", param=name)
    if ".." in settings.path.split("/"):
        raise Invalid("'path' must lead downwards: it may not hold '..'.", param="path")
    return msgspec.structs.replace(
        settings, path=settings.path.strip().strip("/"), include=settings.include.strip()
    )


def folder_root(slug: str) -> Path:
    """The root below which a tenant may name folders.

    Raises:
        Invalid: the operator gave it none.
    """
    root = env().source_roots.get(slug)
    if root is None:
        raise Invalid(
            "This tenant may watch no folder: the operator gives it one in SOURCE_FOLDERS.",
            param="path",
        )
    return root
