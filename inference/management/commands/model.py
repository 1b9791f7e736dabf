"""Brings models in, checks them, lists them."""

import shutil
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from inference.artefacts import Manifest, import_for_elsewhere, import_model
from inference.artefacts.importing import Does
from inference.models import ModelVersion
from inference.services import register_model_version
from inference.verification import verify_model_version
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import PortalError

_GIB = 2**30
_TASKS: Final[dict[str, Does]] = {
    "generation": "generate",
    "embedding": "embed",
    "rerank": "rerank",
}


class _Meter:
    """Says how far a long reading is, about once a second."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._said = time.monotonic()

    def __call__(self, name: str, done: int, size: int) -> None:
        now = time.monotonic()
        if now - self._said >= 1:
            self._said = now
            percent = 100 * done // size if size else 100
            self._stream.write(
                f"{name}: {done / _GIB:.2f} of {size / _GIB:.2f} GiB read ({percent} %)"
            )


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="verb", required=True)
        take = commands.add_parser("import", help="bring a model in and register it as a version")
        take.add_argument(
            "source",
            help="a GGUF file, a folder with safetensors or OpenVINO's format, or, with --mirror, "
            "OWNER/NAME@REVISION",
        )
        take.add_argument("--name", required=True, help="what callers put into 'model'")
        take.add_argument("--label", required=True, help="the version's name, such as 1")
        take.add_argument("--title", default="", help="the model's name for people")
        take.add_argument("--licence", help="needed where the model does not say its own")
        take.add_argument("--provenance", help="where it came from; the source if not given")
        take.add_argument("--mirror", metavar="URL", help="fetch from this mirror, from no other")
        take.add_argument(
            "--chat-template", type=Path, metavar="FILE", help="instead of the model's own"
        )
        take.add_argument(
            "--task", choices=_TASKS, help="what the model does; told from its files if not given"
        )
        take.add_argument(
            "--tokenizer-only",
            action="store_true",
            help="for a model that is served elsewhere: tokenizer and configurations, no weights",
        )
        take.add_argument(
            "--context-length",
            type=int,
            metavar="TOKENS",
            help="with --tokenizer-only: what the server takes, if less than the model's own",
        )
        check = commands.add_parser("verify", help="read the files and compare their SHA-256")
        check.add_argument("version", nargs="?", metavar="NAME@LABEL")
        check.add_argument("--all", action="store_true", help="every version")
        commands.add_parser("list", help="versions with format, size, licence and folder")

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        verbs = {"import": self._import, "verify": self._verify, "list": self._list}
        try:
            verbs[verb](options)
        except PortalError as fault:
            raise CommandError(fault.message) from None

    def _import(self, options: dict[str, Any]) -> None:
        store = env().freehold_data_dir / "models"
        if options["context_length"] is not None and not options["tokenizer_only"]:
            raise CommandError("--context-length is for --tokenizer-only: weights know theirs.")
        meter, mirror = _Meter(self.stderr), options["mirror"]
        source, provenance = Path(options["source"]), options["provenance"]
        if mirror is not None:
            # Imported only here: nothing else of the portal fetches models.
            from inference.artefacts.mirror import fetch

            token = env().mirror_token
            snapshot = fetch(
                mirror,
                options["source"],
                store / ".downloads",
                token=token.get_secret_value() if token else None,
                weights=not options["tokenizer_only"],
                progress=meter,
            )
            source, provenance = snapshot.folder, provenance or snapshot.provenance
        manifest = _imported(source, store, provenance, options, meter)
        version = register_model_version(
            context=Context.system("model import"),
            name=options["name"],
            title=options["title"],
            label=options["label"],
            manifest=manifest,
            path=(store / manifest.id).resolve(),
        )
        if mirror is not None:
            shutil.rmtree(source)
        self.stdout.write(f"{version.sku} is {version.path}, {version.format}, {version.digest}")

    def _verify(self, options: dict[str, Any]) -> None:
        wanted = options["version"]
        if (wanted is None) != options["all"]:
            raise CommandError("Name one version as NAME@LABEL, or say --all.")
        versions = [v for v in _versions() if wanted in (None, v.sku)]
        if wanted is not None and not versions:
            raise CommandError(f"There is no version {wanted}; 'model list' has them all.")
        faults = sum(not self._is_good(version) for version in versions)
        if faults:
            raise CommandError(f"{faults} of {len(versions)} do not hold what was registered.")

    def _is_good(self, version: ModelVersion) -> bool:
        try:
            verify_model_version(
                context=Context.system("model verify"),
                version_id=version.id,
                progress=_Meter(self.stderr),
            )
        except PortalError as fault:
            self.stdout.write(f"FAILED {version.sku}: {fault.message}")
            return False
        self.stdout.write(f"ok     {version.sku}")
        return True

    def _list(self, options: dict[str, Any]) -> None:
        for version in _versions():
            gib = sum(file["size"] for file in (version.files or {}).values()) / _GIB
            self.stdout.write(
                f"{version.sku}  {version.format or '-'}  {version.quantization or '-'}  "
                f"{gib:.2f} GiB  {version.licence or '-'}  {version.path}"
            )


def _imported(
    source: Path, store: Path, provenance: str | None, options: dict[str, Any], meter: _Meter
) -> Manifest:
    task = options["task"]
    known: dict[str, Any] = {
        "name": options["name"],
        "licence": options["licence"],
        "provenance": provenance,
        "template": _template(options["chat_template"]),
        "does": None if task is None else _TASKS[task],
    }
    if options["tokenizer_only"]:
        known["context_length"] = options["context_length"]
        return import_for_elsewhere(source, store, **known)
    return import_model(source, store, **known, progress=meter)


def _versions() -> list[ModelVersion]:
    return list(ModelVersion.objects.select_related("model").order_by("model__name", "label"))


def _template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as fault:
        raise CommandError(f"The chat template {path} can't be read: {fault}.") from None
