"""A portal under mixed load whose parts are killed at random, and its books afterwards.

Web processes, inference workers, io workers, beat and Valkey are killed as the kernel kills, and
PostgreSQL is restarted, while callers ask for whole answers and streams and go away. Each caller
notes what it was told. At the end every job must have ended once, every charge must be what was
delivered, nothing may be reserved any more, and no note may contradict the rows.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.lib.books import judge, show
from benchmarks.lib.portal import Portal
from benchmarks.lib.scene import DEPLOYMENT, Actor, set_scene
from benchmarks.lib.witnesses import Caller, await_end

_CALLERS: Final = 24
_KILLS: Final = 520
_LEAST_KILLS: Final = 22
_KILL_EVERY_S: Final = 2.4
_QUIET_S: Final = 150.0
_SETTINGS: Final = {"LEASE_SECONDS": "4", "HEARTBEAT_SECONDS": "1"}
# How often each is killed, against the others.
_VICTIMS: Final = {
    "gateway 1": 3,
    "gateway 2": 3,
    "worker 1": 4,
    "worker 2": 4,
    "io worker": 2,
    "io worker 2": 2,
    "beat": 1,
    "valkey": 2,
    "postgres": 1,
}


def main() -> None:
    arguments = _arguments()
    kills = max(_LEAST_KILLS, int(_KILLS * arguments.scale))
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        with Portal(Path(home) / "portal", settings=_SETTINGS) as portal:
            ports, actors = set_scene(portal)
            urls = [f"http://{portal.host}:{port}" for port in ports]
            callers = _play(portal, urls, actors, kills, arguments.seed)
            figures = _figures(portal.database_url("superuser"), callers)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if any(figures["broken"].values()):
        raise SystemExit("The books are wrong.")


def _play(
    portal: Portal, urls: Sequence[str], actors: Sequence[Actor], kills: int, seed: int
) -> list[Caller]:
    """Lets the callers loose on a portal that is being killed; returns what they noted."""
    over = threading.Event()
    callers = [
        Caller(urls, actors[n % len(actors)].token, DEPLOYMENT, over, seed * 1000 + n)
        for n in range(_CALLERS)
    ]
    for caller in callers:
        caller.start()
    killed = _kill(portal, kills, random.Random(seed))
    over.set()
    hanging = await_end(callers, _QUIET_S)
    if hanging:
        raise SystemExit(f"These callers hang: {', '.join(hanging)}.")
    print(f"killed {dict(killed)}; all callers have ended", file=sys.stderr)
    return callers


def _kill(portal: Portal, kills: int, chance: random.Random) -> Counter[str]:
    ways: dict[str, Callable[[], None]] = {
        "valkey": portal.kill_valkey,
        "postgres": portal.restart_postgres,
    }
    killed: Counter[str] = Counter()
    # Dealt like cards, so that a short run too meets every kind.
    deck = [victim for victim, weight in _VICTIMS.items() for _ in range(weight)]
    dealt = [v for _ in range(-(-kills // len(deck))) for v in chance.sample(deck, len(deck))]
    for victim in dealt[:kills]:
        time.sleep(chance.uniform(0, 2 * _KILL_EVERY_S))
        ways.get(victim, lambda victim=victim: portal.kill(victim))()  # type: ignore[misc]
        killed[victim] += 1
    return killed


def _figures(superuser_url: str, callers: Sequence[Caller]) -> dict[str, Any]:
    calls = [told for caller in callers for told in caller.told]
    return {
        "calls": len(calls),
        "finished": sum(told.finished for told in calls),
        "left": sum(told.left for told in calls),
        "answers_by_status": dict(sorted(Counter(str(told.status) for told in calls).items())),
        "broken": judge(superuser_url, calls, _QUIET_S),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.05 for a twentieth of the time")
    parser.add_argument("--seed", type=int, default=1, help="another order of kills")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
