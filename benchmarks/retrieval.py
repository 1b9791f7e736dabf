"""Measures retrieval: what is found, in Chinese and in English, and how long a search takes.

Starts an installation of its own with the shipped embedding model. The labelled questions of
``benchmarks/data/retrieval.jsonl`` are asked of a knowledge base that holds their answers, for each
a passage that is about the same and does not answer, and made ones beside; indexed as any document.
Recall@5 is the share of questions whose answer is among the first five passages. Those of
``retrieval_held_out.jsonl`` are for checking alone: nothing is chosen by them. Then the first
questions are asked of 100,000 passages, one after the other: in milliseconds as the caller of the
service sees them, the question's embedding included, which is a job like any other.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where it would hide Python's own module of its name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.lib.portal import Portal

_EMBEDDER: Final = "bench-e5"
_CHILD: Final = ["-m", "benchmarks.lib.retrieving"]
_PASSAGES: Final = 100_000
_ITEMS: Final = 40
_LEAST_ITEMS: Final = 3


def main() -> None:
    arguments = _arguments()
    scale = min(1.0, arguments.scale)
    items, passages = max(_LEAST_ITEMS, int(_ITEMS * scale)), int(_PASSAGES * scale)
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        with Portal(Path(home) / "portal") as portal:
            portal.run([*_CHILD, "serve"])
            portal.add_worker("embedding worker", _EMBEDDER)
            portal.await_ready()
            measured = json.loads(portal.run([*_CHILD, "measure", str(items), str(passages)]))
    _print(measured)
    if arguments.json:
        arguments.json.write_text(json.dumps(_figures(measured), indent=2) + "\n")


def _print(measured: dict[str, Any]) -> None:
    for name, which in (("recall", ""), ("held_out", ", questions held out")):
        recall = measured[name]
        print(f"recall@5 among {measured['searched']:,} passages{which}\n")
        print(f"{'':12}" + "".join(f"{method:>12}" for method in recall))
        for place in next(iter(recall.values())):
            print(f"{place:12}" + "".join(f"{found[place]:>12.3f}" for found in recall.values()))
        print()
    print(f"{measured['passages']:,} passages, one question at a time\n")
    print(f"{'':12}{'p50':>9}{'p95':>9}{'worst':>9}  ms")
    for method, took in measured["latency"].items():
        times = (took["p50_ms"], took["p95_ms"], took["worst_ms"])
        print(f"{method:12}" + "".join(f"{time:>9.1f}" for time in times))


def _figures(measured: dict[str, Any]) -> dict[str, float]:
    figures = {
        f"{name}_{method}_{language}": found[language]
        for name, recall in (("recall5", "recall"), ("held_out_recall5", "held_out"))
        for method, found in measured[recall].items()
        for language in ("en", "zh")
    }
    for method, took in measured["latency"].items():
        figures |= {f"{method}_{name}": took[name] for name in ("p50_ms", "p95_ms")}
    return {name: round(value, 4) for name, value in figures.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.05 for a twentieth of it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
