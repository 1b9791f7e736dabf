"""Makes a quantized artefact of a model and says what it is worth, or compares all methods."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from inference.artefacts import Manifest, load_manifest
from portal.core.errors import PortalError

METHODS = ("int8", "int4", "repack")


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "source", type=Path, help="folder of the artefact (safetensors or GGUF)"
        )
        wanted = parser.add_mutually_exclusive_group(required=True)
        wanted.add_argument(
            "--method",
            choices=METHODS,
            help="repack takes GPTQ and AWQ weights as they are, and measures nothing",
        )
        wanted.add_argument(
            "--table",
            action="store_true",
            help="measure fp32, bf16 and each method on the text, and write no artefact",
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
        method: str | None,
        table: bool,
        text: Path | None,
        store: Path,
        group_size: int | None,
        name: str,
        most_tokens: int,
        **options: Any,
    ) -> None:
        # Here and not above: the machine that shows this help may have no torch.
        from inference.quantization.ggufs import dequantized_folder

        try:
            if load_manifest(source).format == "gguf":
                source = dequantized_folder(source, store, self._say)
            if method is None:
                self._compare(source, _words(text), group_size, most_tokens)
            elif method == "repack":
                self._repack(source, store)
            else:
                self._quantize(source, store, method, _words(text), group_size, name, most_tokens)
        except PortalError as fault:
            raise CommandError(fault.message) from None

    def _compare(self, source: Path, text: str, group_size: int | None, most_tokens: int) -> None:
        from inference.quantization.comparison import compare_methods
        from inference.quantization.report import comparison_table

        lines = list(
            compare_methods(
                source,
                text=text,
                group_size=group_size,
                most_tokens=most_tokens,
                progress=self._say,
            )
        )
        for line in comparison_table(lines):
            self.stdout.write(line)
        self.stdout.write(f"Measured on {lines[0].tokens} tokens of the text.")

    def _repack(self, source: Path, store: Path) -> None:
        from inference.quantization.writing import repack_artefact

        self._report(store, repack_artefact(source, store, self._say))

    def _quantize(
        self,
        source: Path,
        store: Path,
        method: str,
        text: str,
        group_size: int | None,
        name: str,
        most_tokens: int,
    ) -> None:
        from inference.quantization.writing import GROUP_SIZES, Plan, quantize_artefact

        plan = Plan(method, group_size or GROUP_SIZES[method], text, name, most_tokens)
        self._report(store, quantize_artefact(source, store, plan, self._say))

    def _report(self, store: Path, manifest: Manifest) -> None:
        from inference.quantization.description import read_description
        from inference.quantization.report import quality_table

        description = read_description(store / manifest.id)
        assert description is not None
        self.stdout.write(quality_table(manifest, description))
        self.stdout.write(f"The artefact is {store / manifest.id}.")

    def _say(self, line: str) -> None:
        self.stdout.write(line)


def _words(text: Path | None) -> str:
    if text is None:
        raise CommandError("--text is needed: quality is measured on it.")
    try:
        return text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise CommandError(f"The text {text} cannot be read: {fault}") from None
