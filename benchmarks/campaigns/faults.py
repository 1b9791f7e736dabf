"""A portal under mixed load whose parts are killed at random, and its books afterwards.

Web processes, inference workers, io workers, beat and Valkey are killed as the kernel kills, and
PostgreSQL is restarted, while callers ask for whole answers and streams and go away, and business
systems submit jobs and batches, cancel, and receive webhooks. Everybody notes what they were told.
At the end every job must have ended once, every charge must be what was delivered, nothing may be
reserved any more, no webhook may be lost, and no note may contradict the rows.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.lib.books import Depositions, judge, show
from benchmarks.lib.business import Batcher, Receiver, Submitter
from benchmarks.lib.portal import Portal
from benchmarks.lib.scene import DEPLOYMENT, Actor, set_scene
from benchmarks.lib.witnesses import Caller, Witness, await_end
from portal.core.supervisor import ready

_CALLERS: Final = 18
_SUBMITTERS: Final = 9
_BATCHERS: Final = 3
_REFUSED: Final = 0.1
_KILLS: Final = 520
_LEAST_KILLS: Final = 22
_KILL_EVERY_S: Final = 1.8
_QUIET_S: Final = 150.0
_REVIVE_EVERY_S: Final = 0.5
_SETTINGS: Final = {
    "LEASE_SECONDS": "4",
    "HEARTBEAT_SECONDS": "1",
    "WEBHOOK_NETWORKS": "127.0.0.0/8",
}
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
            chance = random.Random(arguments.seed)
            hears = Receiver(portal.host, lambda: chance.random() < _REFUSED)
            with _revived(portal), hears as receiver:
                receiver.secrets |= {actor.webhook_secret for actor in actors}
                crowd = Crowd(urls, actors, receiver.url, arguments.seed)
                killed = _play(portal, ports, crowd, kills, arguments.seed)
                testimony = crowd.testimony(receiver)
                broken = judge(portal.database_url("superuser"), testimony, _QUIET_S)
            broken["webhooks_forged"] = receiver.forged
    figures = _figures(testimony) | {"kills": dict(killed), "broken": broken}
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if any(figures["broken"].values()):
        raise SystemExit("The books are wrong.")


class Crowd:
    """Everybody who calls."""

    def __init__(
        self, urls: Sequence[str], actors: Sequence[Actor], receiver: str, seed: int
    ) -> None:
        self.over = threading.Event()

        def contexts(count: int, first: int) -> list[tuple[Any, ...]]:
            return [
                (
                    urls,
                    actors[n % len(actors)].token,
                    DEPLOYMENT,
                    self.over,
                    seed * 1000 + first + n,
                )
                for n in range(count)
            ]

        self.callers = [Caller(*context) for context in contexts(_CALLERS, 0)]
        self.submitters = [
            Submitter(*context, receiver=receiver) for context in contexts(_SUBMITTERS, 100)
        ]
        self.batchers = [Batcher(*context) for context in contexts(_BATCHERS, 200)]

    @property
    def all(self) -> list[Witness]:
        return [*self.callers, *self.submitters, *self.batchers]

    def testimony(self, receiver: Receiver) -> Depositions:
        return Depositions(
            [told for caller in self.callers for told in caller.told],
            [job for submitter in self.submitters for job in submitter.submitted],
            [batch for batcher in self.batchers for batch in batcher.batches],
            receiver.ended,
        )


@contextmanager
def _revived(portal: Portal) -> Iterator[None]:
    """What gives up at its start, for want of the database, is started again."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(_REVIVE_EVERY_S):
            portal.revive()

    reviving = threading.Thread(target=run, name="reviving", daemon=True)
    reviving.start()
    try:
        yield
    finally:
        over.set()
        reviving.join()


def _play(
    portal: Portal, ports: Sequence[int], crowd: Crowd, kills: int, seed: int
) -> Counter[str]:
    """Lets everybody loose on a portal that is being killed; returns what was killed how often."""
    for witness in crowd.all:
        witness.start()
    killed = _kill(portal, ports, kills, random.Random(seed))
    crowd.over.set()
    hanging = await_end(crowd.all, _QUIET_S)
    if hanging:
        raise SystemExit(f"These hang: {', '.join(hanging)}.")
    print(f"{killed.total()} kills; everybody has ended", file=sys.stderr)
    return killed


def _kill(portal: Portal, ports: Sequence[int], kills: int, chance: random.Random) -> Counter[str]:
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
        _await_a_gateway(portal, ports)
        ways.get(victim, lambda victim=victim: portal.kill(victim))()  # type: ignore[misc]
        killed[victim] += 1
    return killed


def _await_a_gateway(portal: Portal, ports: Sequence[int]) -> None:
    """Where nobody can be reached nothing can go wrong: on a slow machine kills wait for load."""
    deadline = time.monotonic() + _QUIET_S
    while not any(ready.ask(portal.host, port).ready for port in ports):
        if time.monotonic() > deadline:
            raise SystemExit("No gateway comes back.")
        time.sleep(0.2)


def _figures(testimony: Depositions) -> dict[str, Any]:
    calls, submitted, batches = testimony.calls, testimony.submitted, testimony.batches
    return {
        "calls": len(calls),
        "finished": sum(told.finished for told in calls),
        "left": sum(told.left for told in calls),
        "answers_by_status": dict(sorted(Counter(str(told.status) for told in calls).items())),
        "jobs_by_state": dict(Counter(job.state for job in submitted)),
        "jobs_that_call_back": sum(job.calls_back for job in submitted),
        "batches": len(batches),
        "lines_answered": sum(len(batch.results) for batch in batches),
        "lines_failed": sum(len(batch.errors) for batch in batches),
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
