"""Everything is restarted, one part after the other, while the official client goes on calling.

Two web processes behind a balancer, two inference workers, two io workers and beat are each
stopped as an update stops them and started again; then PostgreSQL and Valkey. Callers use the
official client with its own retries, and nothing else: a call that still fails is counted.
Streams can't outlive the broker that carries them, so while the servers are restarted whole
answers alone are asked for. Afterwards the books must be right.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import openai
import psycopg

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.lib.balancer import Balancer
from benchmarks.lib.books import Depositions, judge, show
from benchmarks.lib.portal import Portal
from benchmarks.lib.scene import DEPLOYMENT, Actor, set_scene
from benchmarks.lib.witnesses import Told
from portal.core.supervisor import ready

_CALLERS: Final = 16
_ROUNDS: Final = 10
_BACK_S: Final = 60.0
_BETWEEN_S: Final = 1.0
_QUIET_S: Final = 90.0
_READY: Final = b"""
SELECT count(*) FROM inference_worker w JOIN inference_deployment d ON d.id = w.deployment_id
 WHERE d.name = %s AND w.state = 'ready' AND w.heartbeat_at > now() - interval '3 seconds'
"""


class Caller(threading.Thread):
    """A business system with the official client, as it comes."""

    def __init__(self, url: str, token: str, number: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key=token)
        self._number = number
        self._over = over
        self.streams = threading.Event()
        self.streams.set()
        self.told: list[Told] = []
        self.failed: list[str] = []

    def run(self) -> None:
        asked = 0
        while not self._over.is_set():
            asked += 1
            streams = self._number % 2 == 0 and self.streams.is_set()
            try:
                self._ask(f"{self._number} asks {asked}", stream=streams)
            except openai.OpenAIError as fault:
                self.failed.append(repr(fault))

    def _ask(self, content: str, *, stream: bool) -> None:
        told = Told("stream" if stream else "whole", status=200)
        body: dict[str, Any] = {
            "model": DEPLOYMENT,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 25,
        }
        completions = self._client.chat.completions
        if stream:
            for chunk in completions.create(
                stream=True, stream_options={"include_usage": True}, **body
            ):
                told.take(chunk.model_dump())
        else:
            told.take(completions.create(**body).model_dump())
        told.finished = True
        self.told.append(told)


def main() -> None:
    arguments = _arguments()
    rounds = max(1, round(_ROUNDS * arguments.scale))
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        with Portal(Path(home) / "portal") as portal:
            ports, actors = set_scene(portal)
            with Balancer(portal.host, ports) as balancer:
                url = f"http://{balancer.host}:{balancer.port}"
                callers, restarts = _play(portal, url, ports, actors, rounds)
            figures = {"restarts": restarts}
            figures |= _figures(portal.database_url("superuser"), callers)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if figures["failed"] or any(figures["broken"].values()):
        raise SystemExit("A restart was noticed.")


def _play(
    portal: Portal, url: str, ports: Sequence[int], actors: Sequence[Actor], rounds: int
) -> tuple[list[Caller], int]:
    """Restarts everything so often; returns the callers, and how many restarts there were."""
    over = threading.Event()
    callers = [Caller(url, actors[n % len(actors)].token, n, over) for n in range(_CALLERS)]
    for caller in callers:
        caller.start()
    restarts = 0
    for number in range(rounds):
        restarts += _roll_processes(portal, ports)
        for caller in callers:
            caller.streams.clear()
        time.sleep(_BETWEEN_S)
        portal.restart_postgres()
        time.sleep(_BETWEEN_S)
        portal.kill_valkey()
        time.sleep(_BETWEEN_S)
        for caller in callers:
            caller.streams.set()
        restarts += 2
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    over.set()
    for caller in callers:
        caller.join(_QUIET_S)
        assert not caller.is_alive(), "a caller hangs"
    return callers, restarts


def _roll_processes(portal: Portal, ports: Sequence[int]) -> int:
    """Restarts each process once the one before is back; how many there were."""
    back: dict[str, Callable[[], bool]] = {
        f"gateway {n}": lambda port=port: ready.ask(portal.host, port).ready  # type: ignore[misc]
        for n, port in enumerate(ports, 1)
    }
    back |= {f"worker {n}": lambda: _workers(portal) == 2 for n in (1, 2)}
    back |= {name: lambda: True for name in ("io worker", "io worker 2", "beat")}
    for name, is_back in back.items():
        time.sleep(_BETWEEN_S)
        portal.restart(name)
        deadline = time.monotonic() + _BACK_S
        while not is_back():
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} is not back after {_BACK_S:.0f} s.")
            time.sleep(0.1)
    return len(back)


def _workers(portal: Portal) -> int:
    with psycopg.connect(portal.database_url("superuser"), autocommit=True) as connection:
        row = connection.execute(_READY, [DEPLOYMENT]).fetchone()
        assert row is not None
        return int(row[0])


def _figures(superuser_url: str, callers: Sequence[Caller]) -> dict[str, Any]:
    told = [call for caller in callers for call in caller.told]
    failed = Counter(fault for caller in callers for fault in caller.failed)
    for fault, count in failed.items():
        print(f"{count} times {fault}", file=sys.stderr)
    return {
        "whole_answers": sum(call.kind == "whole" for call in told),
        "streams": sum(call.kind == "stream" for call in told),
        "failed": failed.total(),
        "broken": judge(superuser_url, Depositions(told), _QUIET_S),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.1 for a tenth of the rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
