"""Makes the demo data: two tenants with every role, quotas, a key, and the shipped model."""

import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from portal.core.env import env
from portal.ops.demo import Demo


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="write log-ins and API key there, readable by this user alone",
        )

    def handle(self, *args: Any, json: Path | None, **options: Any) -> None:
        known = {} if json is None else _known(json)
        facts = Demo(env().freehold_data_dir / "models", known).make()
        if json is None:
            self.stdout.write("\n".join(f"{name}: {value}" for name, value in facts.items()))
        else:
            _write(json, facts)


def _known(target: Path) -> dict[str, str]:
    """The facts of an earlier run: of the file itself, or of the start.json beside it."""
    for path in (target, target.parent / "start.json"):
        try:
            found = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            continue
        if isinstance(found, dict):
            return {str(k): v for k, v in found.items() if isinstance(v, str)}
    return {}


def _write(target: Path, facts: dict[str, str]) -> None:
    """Replaces the file at once; nobody else can read it at any moment."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.new")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(facts, indent=2) + "\n")
    part.replace(target)
