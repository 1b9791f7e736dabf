"""Limits of every kind, hit at once through four gateways that are killed meanwhile.

64 clients call for tenants of which each has one limit: tokens, requests or cost in a minute, a
day, a month or in total, or generations at once; of a tenant, a key, a user, a model. Gateways and
workers are killed and started again all the while. Afterwards every admission and every refusal is
replayed from the rows: nothing may be spent beyond a limit, and nothing refused that fitted.
"""

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from benchmarks.lib.limits import DEPLOYMENT, MAX_TOKENS, Case
from benchmarks.lib.portal import Portal
from benchmarks.lib.replay import Verdict, read, replay

_CLIENTS: Final = 64
_GATEWAYS: Final = 4
_SECONDS: Final = 600.0
_CALLS: Final = 4_000
_LEAST_CALLS: Final = 30
_KILL_EVERY_S: Final = 4.0
# Between two calls of a client, so that what is measured is limits and not the machine.
_PAUSE_S: Final = 0.05
_END_S: Final = 60.0
_HELD: Final = """
SELECT count(*) FROM tenants_quotawindow
 WHERE active <> 0 OR tokens_total_held <> 0 OR cost_total_held <> 0
"""


class Client(threading.Thread):
    """Calls one gateway for one tenant, again and again, whatever comes back."""

    def __init__(self, host: str, port: int, case: Case, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._address = (host, port)
        self._token = case.token
        self._over = over
        self.statuses: dict[int, int] = {}

    def run(self) -> None:
        pause = random.Random(self._token)
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        body = json.dumps(
            {
                "model": DEPLOYMENT,
                "messages": [{"role": "user", "content": "go"}],
                "max_tokens": MAX_TOKENS,
            }
        )
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        while not self._over.is_set():
            try:
                connection.request("POST", "/v1/chat/completions", body, headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self._over.wait(pause.uniform(0, 2 * _PAUSE_S))
        connection.close()


def main() -> None:
    arguments = _arguments()
    calls = max(_LEAST_CALLS, int(_CALLS * arguments.scale))
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        with Portal(Path(home) / "portal") as portal:
            cases = msgspec.json.decode(
                portal.run(["-m", "benchmarks.lib.limits", str(calls)]), type=list[Case]
            )
            ports = [portal.port]
            ports += [portal.add_gateway(f"web {n}") for n in range(2, _GATEWAYS + 1)]
            for number in (1, 2):
                portal.add_worker(f"limits {number}", DEPLOYMENT)
            portal.await_ready()
            print(f"{len(cases)} limits, {_GATEWAYS} gateways are ready", file=sys.stderr)
            kills, statuses = _hit(portal, cases, ports, _SECONDS * arguments.scale)
            print("all clients have ended", file=sys.stderr)
            verdicts, held = _judge(portal.database_url("superuser"), cases)
    _print(cases, verdicts)
    figures = {
        "admitted": sum(v.admitted for v in verdicts),
        "refused": sum(v.refused for v in verdicts),
        "kills": kills,
        "overspend": sum(v.overspent for v in verdicts),
        "phantom_refusals": sum(v.phantoms for v in verdicts),
        "unsettled": sum(v.unsettled for v in verdicts),
        "windows_that_still_hold": held,
    }
    print("\nanswers by status: " + ", ".join(f"{s}: {n:,}" for s, n in sorted(statuses.items())))
    print(", ".join(f"{name} {value:,}" for name, value in figures.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if any(figures[name] for name in list(figures)[3:]):
        raise SystemExit("The limits did not hold.")


def _hit(
    portal: Portal, cases: Sequence[Case], ports: Sequence[int], seconds: float
) -> tuple[int, dict[int, int]]:
    """Lets the clients loose; returns how many processes were killed, and what came back."""
    over, kills = threading.Event(), 0
    clients = [
        Client(portal.host, ports[number % len(ports)], cases[number % len(cases)], over)
        for number in range(_CLIENTS)
    ]
    victims = [f"web {n}" for n in range(2, _GATEWAYS + 1)] + ["limits 1", "limits 2"]
    chance = random.Random(11)
    for client in clients:
        client.start()
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        time.sleep(min(left, _KILL_EVERY_S))
        if time.monotonic() < ends_at:
            portal.kill(chance.choice(victims))
            kills += 1
    over.set()
    statuses: dict[int, int] = {}
    for client in clients:
        client.join(60)
        for status, count in client.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    return kills, statuses


def _judge(superuser_url: str, cases: Sequence[Case]) -> tuple[list[Verdict], int]:
    """The verdicts once every job has ended, and how many windows hold something still."""
    deadline = time.monotonic() + _END_S
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        while _count(connection, "SELECT count(*) FROM inference_job WHERE state <= 1"):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        verdicts = [replay(case, *read(connection, case.tenant_id)) for case in cases]
        return verdicts, _count(connection, _HELD)


def _count(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _print(cases: Sequence[Case], verdicts: Sequence[Verdict]) -> None:
    print(f"{'limit of a':<14}  {'on':<15}  {'admitted':>8}  {'refused':>8}  overspent  phantoms")
    for case, verdict in zip(cases, verdicts, strict=True):
        print(
            f"{case.scope:<14}  {case.limit:<15}  {verdict.admitted:>8,}  {verdict.refused:>8,}  "
            f"{verdict.overspent:>9}  {verdict.phantoms:>8}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="0.05 for a twentieth of the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
