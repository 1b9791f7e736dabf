"""Measures claiming: 32 jobs out of many that wait, as a worker claims them.

Starts an installation of its own, fills the queue of a deployment that no worker serves, and
claims from it over and over, with the worker's own statement and role. Prints milliseconds of the
statement as its caller sees them, and of the whole transaction.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where it would hide Python's own module of its name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.lib.portal import Portal

_WAITING: Final = (1_000, 100_000, 1_000_000)
_LEAST: Final = 1_000


def main() -> None:
    arguments = _arguments()
    waiting = [max(_LEAST, int(count * min(1.0, arguments.scale))) for count in _WAITING]
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        with Portal(Path(home) / "portal") as portal:
            words = ["-m", "benchmarks.lib.claiming", *map(str, waiting)]
            measured = json.loads(portal.run(words, told=portal.database_url("superuser")))
    print(f"{'waiting':>10}  {'claim p50':>9}  {'worst':>7}  {'transaction p50':>15}  ms")
    for claims in measured:
        print(
            f"{claims['waiting']:>10,}  {claims['statement_p50_ms']:>9.2f}  "
            f"{claims['statement_worst_ms']:>7.2f}  {claims['transaction_p50_ms']:>15.2f}"
        )
    if arguments.json:
        figures = {
            f"claim_32_of_{nominal}_ms": round(claims["statement_p50_ms"], 4)
            for nominal, claims in zip(_WAITING, measured, strict=True)
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.05 for a twentieth of the jobs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
