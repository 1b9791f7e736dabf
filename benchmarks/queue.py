"""Measures the queue: how fair it is, and what a claim of 32 jobs costs out of many that wait.

Starts an installation of its own with a deployment that no worker serves. Two tenants of weights
3 and 1 fill its queue, the lighter one last, and are claimed from; printed is what each got. Then
up to a million jobs wait, and claims are measured with the worker's own statement and role: in
milliseconds of the statement as its caller sees them, and of the whole transaction.
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
_FAIR_JOBS: Final = 4_000
_FAIR_LEAST: Final = 400


def main() -> None:
    arguments = _arguments()
    jobs = max(_FAIR_LEAST, int(_FAIR_JOBS * min(1.0, arguments.scale)))
    waiting = [max(_LEAST, int(count * min(1.0, arguments.scale))) for count in _WAITING]
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        with Portal(Path(home) / "portal", tenants=2) as portal:
            superuser = portal.database_url("superuser")
            words = ["-m", "benchmarks.lib.fairness", str(jobs)]
            fair = json.loads(portal.run(words, told="\n".join((superuser, *portal.keys))))
            words = ["-m", "benchmarks.lib.claiming", *map(str, waiting)]
            measured = json.loads(portal.run(words, told=superuser))
    ratio = fair["tokens"][0] / fair["tokens"][1]
    print(
        f"weights 3 and 1 got {ratio:.3f} : 1 of the tokens; of {jobs:,} jobs each, the lighter "
        f"one's first was in claim {fair['first_claim']}\n"
    )
    print(f"{'waiting':>10}  {'claim p50':>9}  {'worst':>7}  {'transaction p50':>15}  ms")
    for claims in measured:
        print(
            f"{claims['waiting']:>10,}  {claims['statement_p50_ms']:>9.2f}  "
            f"{claims['statement_worst_ms']:>7.2f}  {claims['transaction_p50_ms']:>15.2f}"
        )
    if arguments.json:
        figures = {"fairness_3_to_1": round(ratio, 4), "first_claim": fair["first_claim"]} | {
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
