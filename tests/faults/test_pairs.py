"""Two gateways and two workers: one of each may die, and callers who try again notice no more."""

import threading
import time
from collections.abc import Sequence

import httpx

from inference.models.jobs import JobState
from tests.faults.arena import PACE, Arena
from tests.faults.conftest import MakeArena
from tests.live import Programs, Web
from tests.waiting import eventually

BACK_WITHIN = 5.0


class Client:
    """A business system: asks in a loop, and tries again, elsewhere, what was not answered."""

    def __init__(self, arena: Arena, gateways: Sequence[Web], first: int) -> None:
        self._arena = arena
        self._gateways = gateways
        self._turn = first
        self._stopped = threading.Event()
        self.answered: list[float] = []
        self.refused: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns once the last question has been answered."""
        self._stopped.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with httpx.Client(timeout=30) as http:
            while not self._stopped.is_set():
                while not self._ask(http):
                    self._turn += 1

    def _ask(self, http: httpx.Client) -> bool:
        url = self._gateways[self._turn % len(self._gateways)].url
        body = {
            "model": self._arena.deployed.model,
            "messages": [{"role": "user", "content": "go"}],
            "max_tokens": 20,
        }
        headers = {"Authorization": f"Bearer {self._arena.token}"}
        try:
            answer = http.post(f"{url}/v1/chat/completions", json=body, headers=headers)
        except httpx.HTTPError:
            return False
        if answer.status_code != 200:
            self.refused.append(answer.status_code)
            return False
        self.answered.append(time.monotonic())
        return True


def test_goes_on_within_5_s_and_loses_nothing_when_one_of_each_is_killed(
    set_arena: MakeArena, programs: Programs
) -> None:
    gateways = [programs.web(f"pair-{n}", FREEHOLD_PLANES="data", **PACE) for n in (1, 2)]
    for gateway in gateways:
        gateway.wait_alive()
    arena = set_arena(served_by=gateways[1], token_ms=10, slots=6)
    doomed, _ = arena.worker(), arena.worker()
    clients = [Client(arena, gateways, number) for number in range(24)]
    try:
        eventually(lambda: all(len(c.answered) > 2 for c in clients), what="all are served")
        gateways[0].kill()
        doomed.kill()
        killed_at = time.monotonic()
        eventually(
            lambda: all(c.answered[-1] > killed_at for c in clients),
            within=BACK_WITHIN,
            what="every client is answered again",
        )
    finally:
        for client in clients:
            client.stop()
    # Whatever was refused says that another try may help.
    assert {status for client in clients for status in client.refused} <= {503}
    jobs = arena.balance()
    answered = sum(len(client.answered) for client in clients)
    succeeded = sum(job["state"] == JobState.SUCCEEDED for job in jobs)
    # An answer that died with its gateway was made and charged, but nobody was told.
    assert answered <= succeeded <= answered + len(clients)
