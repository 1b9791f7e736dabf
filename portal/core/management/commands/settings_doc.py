"""Writes the table of all settings as Markdown, from the typed environment itself."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Gt
from django.core.management.base import BaseCommand
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from portal.core.env import Env

_HEAD: Final = """\
# Settings

Written by `manage.py settings_doc --file docs/settings.md` from `portal/core/env.py`; `bin/check`
fails where the two differ. Don't edit it by hand.

Each process reads its settings once, when it starts. A value comes from the environment variable,
else from a file of that name in lower case in `<data dir>/secrets/`, else from the default. What
is wrong or missing is reported all at once, and the process does not start. `bin/start` writes the
files of the secrets and of the URLs itself.

A setting marked *secret* is never written to a log.

| variable | type | default | what it is |
| --- | --- | --- | --- |
"""
_BOUNDS: Final = {Ge: ("ge", "at least"), Gt: ("gt", "more than")}


class Command(BaseCommand):
    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--file", type=Path, help="where to write it; standard output if not")

    def handle(self, *args: Any, file: Path | None, **options: Any) -> None:
        if file is None:
            self.stdout.write(settings_page(), ending="")
        else:
            file.write_text(settings_page(), encoding="utf-8")


def settings_page() -> str:
    """The whole page, a row a setting, in the order of the class."""
    return _HEAD + "".join(_row(name, field) for name, field in Env.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    cells = (f"`{name.upper()}`", _kind(field), _default(field), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _kind(field: FieldInfo) -> str:
    annotation = field.annotation
    optional = type(None) in get_args(annotation)
    if optional:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(annotation))
    names = {SecretStr: "*secret*", Path: "path", str: "text", int: "whole number", float: "number"}
    kind = "`true` or `false`" if annotation is bool else names[annotation]  # type: ignore[index]
    return ", ".join([kind, *_bounds(field)])


def _bounds(field: FieldInfo) -> list[str]:
    return [
        f"{words} {getattr(bound, attribute):g}"
        for bound in field.metadata
        for kind, (attribute, words) in _BOUNDS.items()
        if isinstance(bound, kind)
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, ""):
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"
