"""Makes a quantized artefact of a model, and says what it is worth."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from inference.artefacts import load_manifest
from portal.core.errors import PortalError

METHODS = ("int8", "int4", "repack")


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "source", type=Path, help="folder of the artefact (safetensors or GGUF)"
        )
        parser.add_argument(
            "--method",
            required=True,
            choices=METHODS,
            help="repack takes GPTQ and AWQ weights as they are, and measures nothing",
        )
        parser.add_argument("--text", type=Path, help="UTF-8 text that quality is measured on")
        parser.add_argument("--store", type=Path, required=True, help="folder of artefacts")
        parser.add_argument(
            "--group-size", type=int, help="weights that share a scale; 32 if not given"
        )
        parser.add_argument("--name", default="", help="of the new artefact, for people")
        parser.add_argument(
            "--most-tokens", type=int, default=0, help="read so many tokens of the text; else all"
        )

    def handle(
        self,
        *args: Any,
        source: Path,
        method: str,
        text: Path | None,
        store: Path,
        group_size: int | None,
        name: str,
        most_tokens: int,
        **options: Any,
    ) -> None:
        # Here and not above: the machine that shows this help may have no torch.
        from inference.quantization.description import read_description
        from inference.quantization.ggufs import dequantized_folder
        from inference.quantization.report import quality_table
        from inference.quantization.writing import (
            GROUP_SIZES,
            Plan,
            quantize_artefact,
            repack_artefact,
        )

        try:
            if load_manifest(source).format == "gguf":
                source = dequantized_folder(source, store, self.stdout.write)
            if method == "repack":
                manifest = repack_artefact(source, store, self.stdout.write)
            else:
                size = group_size or GROUP_SIZES[method]
                plan = Plan(method, size, _words(text), name, most_tokens)
                manifest = quantize_artefact(source, store, plan, self.stdout.write)
            description = read_description(store / manifest.id)
        except PortalError as fault:
            raise CommandError(fault.message) from None
        assert description is not None
        self.stdout.write(quality_table(manifest, description))
        self.stdout.write(f"The artefact is {store / manifest.id}.")


def _words(text: Path | None) -> str:
    if text is None:
        raise CommandError("--text is needed: quality is measured on it.")
    try:
        return text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise CommandError(f"The text {text} cannot be read: {fault}") from None
