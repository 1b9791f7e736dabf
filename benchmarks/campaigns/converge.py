"""Random sequences of edits here, clicks in Dify, faults and kills: do they end in step?

A sequence is up to 24 moves: somebody edits in the portal, or in Dify behind its back; Dify fails,
loses answers or segments; a runner runs, or is killed at one of its calls. Then the weather clears
and the runner runs on. Wrong is: something missing, otherwise or twice in Dify, something left
there that nobody wants, or a change that is still made once all is in step.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.lib.in_step import Stage

_SEQUENCES: Final = 1_000
_LEAST: Final = 10
_MOST_MOVES: Final = 24
_SEED: Final = 5


def main() -> None:
    arguments = _arguments()
    count = max(_LEAST, int(_SEQUENCES * arguments.scale))
    moves: Counter[str] = Counter()
    wrong: dict[int, list[str]] = {}
    begun = time.monotonic()
    with Stage() as stage:
        for number in range(count):
            found, played = _play(stage, _SEED * 1_000_003 + number)
            moves.update(name for name, _, _ in played)
            if found:
                wrong[number] = found
                print(f"sequence {number}: {found}\n{played}", file=sys.stderr)
    for name, played_times in sorted(moves.items()):
        print(f"{name:<16}  {played_times:>6,}")
    figures = {
        "sequences": count,
        "moves": moves.total(),
        "kills": moves["killed_run"],
        "faults": moves["fault"],
        "clicks_in_dify": sum(n for name, n in moves.items() if name.startswith("click")),
        "sequences_not_in_step": len(wrong),
    }
    print(", ".join(f"{name} {value:,}" for name, value in figures.items()))
    print(f"{time.monotonic() - begun:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if wrong:
        raise SystemExit("Not every sequence ended in step.")


def _play(stage: Stage, seed: int) -> tuple[list[str], list[Any]]:
    """What is wrong after a sequence, and its moves."""
    from tests.knowledge.sync.moves import MOVES, Player, faults_of

    chance = random.Random(seed)
    bench = stage.bench()
    player = Player(bench)
    player.play(("add_base", 0, 0))
    player.play(("put_text", 0, 0))
    for _ in range(chance.randint(4, _MOST_MOVES)):
        player.play((chance.choice(MOVES), chance.randint(0, 40), chance.randint(0, 40)))
    bench.double.heal()
    bench.double.knowledge.lose = 0
    for _ in range(2):
        bench.settle(look=True)
    found = faults_of(bench)
    bench.double.seen.clear()
    bench.run(look=True)
    changes = {seen.request.method for seen in bench.double.seen} - {"GET"}
    if changes:
        found.append(f"still changed by {sorted(changes)}")
    stage.leave(bench)
    return found, player.played


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.05 for a twentieth of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
