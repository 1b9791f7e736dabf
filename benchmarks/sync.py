"""Measures what keeping 1,000 documents in step asks of Dify: the first time, and with 1% changed.

Runs the portal's own runner against a double of Dify on this machine. Counted are requests, by
what they are; the seconds are those of the portal and of the double together.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where it would hide Python's own module of its name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.lib.in_step import Stage

_DOCUMENTS: Final = 1_000
_LEAST: Final = 20
_MOST_SHARE: Final = 0.03


def main() -> None:
    arguments = _arguments()
    documents = max(_LEAST, int(_DOCUMENTS * min(1.0, arguments.scale)))
    with Stage() as stage:
        bench = stage.bench()
        base = bench.base("Handbook")
        for number in range(documents):
            stage.put(base, f"document-{number:04}.txt", f"Rule {number} of the house.")
        first, first_s = _measured(stage, bench)
        for number in range(0, documents, 100):
            stage.put(base, f"document-{number:04}.txt", f"Rule {number}, changed.")
        second, second_s = _measured(stage, bench)
        whole = len(bench.double.dataset("Handbook").documents)
    share = second.total() / first.total()
    _print(first, second)
    print(
        f"\n{documents:,} documents: {first.total():,} requests in {first_s:.0f} s; with "
        f"{len(range(0, documents, 100))} changed {second.total():,} in {second_s:.1f} s, which "
        f"is {share:.2%}"
    )
    figures = {
        "documents": documents,
        "first_requests": first.total(),
        "first_s": round(first_s, 2),
        "changed_requests": second.total(),
        "changed_s": round(second_s, 2),
        "changed_share": round(share, 4),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if whole != documents or (documents >= _DOCUMENTS and share > _MOST_SHARE):
        raise SystemExit("A document is missing, or a small change asks too much.")


def _measured(stage: Stage, bench: Any) -> tuple[Counter[str], float]:
    """Requests by route, and seconds, until all is in step; Dify is looked at whole first."""
    bench.double.seen.clear()
    begun = time.monotonic()
    stage.settle(bench)
    seconds = time.monotonic() - begun
    return Counter(f"{seen.route[0]} {seen.route[1]}" for seen in bench.double.seen), seconds


def _print(first: Counter[str], second: Counter[str]) -> None:
    print(f"{'request':<62}  {'first':>6}  {'1% changed':>10}")
    for route in sorted(first.keys() | second.keys()):
        print(f"{route:<62}  {first[route]:>6,}  {second[route]:>10,}")


def _arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.05 for a twentieth of it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
