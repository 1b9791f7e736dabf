"""The worker's turns at the database: settle what has ended, claim what waits, in one transaction.

A turn is taken by whichever thread brings the news, if nobody is at one and the thread may wait;
else by the queue's own. Handing work to a thread costs as much as a tenth of a turn.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog

from inference.fallback import Move, move_of, moved, send_moves
from inference.pipelining import Answer, Pipe
from inference.settlement import Settled, Settlement, settle, settled
from inference.worker import claims
from inference.worker.claims import Claimed, Progress
from inference.worker.floor import LOOK_SECONDS, Floor

log = structlog.get_logger(__name__)

# Kept answers that one statement settles; PostgreSQL takes no value of a gibibyte.
_MOST_ANSWER_CHARS: Final = 64_000_000
_RETRY_SECONDS: Final = 0.2
_MAX_CLAIM: Final = 128


@dataclass(frozen=True, slots=True)
class Release:
    """A job to be put back into the queue."""

    job_id: UUID
    fence: int
    forgive: bool


class Queue:
    """Claims and settles for one deployment, on one connection, one turn after the other.

    Args:
        capacity: how many more jobs the engine can take now.
        on_claimed: receives claimed jobs, in fair order.
        on_settled: receives the settlements that were committed.
        on_moved: receives the queues of other deployments in which jobs of this one wait now.
    """

    def __init__(
        self,
        url: str,
        *,
        deployment_id: UUID,
        worker: str,
        lease_seconds: float,
        capacity: Callable[[], int],
        on_claimed: Callable[[list[Claimed]], None],
        on_settled: Callable[[list[Settled], list[Settlement]], None],
        on_more: Callable[[], None],
        on_moved: Callable[[set[str]], None],
    ) -> None:
        self._url = url
        self._deployment_id = deployment_id
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._capacity = capacity
        self._on_claimed = on_claimed
        self._on_settled = on_settled
        self._on_more = on_more
        self._on_moved = on_moved
        self._connection: psycopg.Connection[Any] | None = None
        self._pipe: Pipe | None = None
        self._settlements: deque[Settlement] = deque()
        self._marks: deque[Progress] = deque()
        self._releases: deque[Release] = deque()
        self._turn = threading.Event()
        # Whoever holds this has the turn, and with it connection and pipe.
        self._gate = threading.Lock()
        self._wanted = False
        self._rung = True
        self._claiming = True
        self._stopped = False
        # After a refused statement the settlements go one by one, to find the one at fault.
        self._singly = False
        self._floor = Floor()
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ring(self) -> None:
        """There may be work: it is looked for on this thread unless another is at it."""
        self._rung = True
        self._take_over()

    def settle(self, settlements: Sequence[Settlement], *, wait: bool = False) -> None:
        """Hands over ended jobs.

        Args:
            wait: this thread has nothing else to do, and may settle them itself.
        """
        self._settlements.extend(settlements)
        if wait:
            self._take_over()
        else:
            self._turn.set()

    def mark(self, progress: Progress) -> None:
        """Records a first token at once: from here on the job must not run again."""
        self._marks.append(progress)
        self._turn.set()

    def release(self, release: Release) -> None:
        self._releases.append(release)
        self._turn.set()

    def stop_claiming(self) -> None:
        self._claiming = False

    def pause(self) -> None:
        """Stops claiming; when it returns, no claim is under way."""
        self._claiming = False
        with self._gate:
            pass

    def resume(self) -> None:
        """Claims again."""
        self._claiming = True
        self.ring()

    def stop(self) -> None:
        """Writes what was handed over, then ends the thread."""
        self._claiming = False
        self._stopped = True
        self._turn.set()
        self._thread.join(timeout=10)
        if self._connection is not None:
            self._connection.close()

    def _take_over(self) -> None:
        """A turn on the caller's thread; connections are made on the queue's own."""
        self._wanted = True
        if self._pipe is not None and self._gate.acquire(blocking=False):
            try:
                self._guarded_turn()
            finally:
                self._gate.release()
        if self._wanted:
            self._turn.set()

    def _run(self) -> None:
        while True:
            self._turn.wait(timeout=LOOK_SECONDS)
            self._turn.clear()
            with self._gate:
                fault = self._guarded_turn()
            if fault is not None:
                if self._stopped and isinstance(fault, psycopg.OperationalError):
                    # Without a database nothing can be written; leases run out by themselves.
                    return
                threading.Event().wait(_RETRY_SECONDS)
            if self._stopped and not (self._settlements or self._releases):
                return

    def _guarded_turn(self) -> psycopg.Error | None:
        """One turn, by the holder of the gate; the fault if the database had one."""
        self._wanted = False
        try:
            self._take_turn()
        except psycopg.Error as fault:
            self._recover(fault)
            return fault
        return None

    def _recover(self, fault: psycopg.Error) -> None:
        """Drops the connection; nothing handed over is forgotten, for settling twice is safe."""
        log.warning("queue.database_failed", error=str(fault))
        if self._connection is not None:
            self._connection.close()
            self._connection = self._pipe = None
        if self._settlements and self._singly and not isinstance(fault, psycopg.OperationalError):
            # This one row is refused: it is renewed no more, and the sweeper ends the job.
            refused = self._settlements.popleft()
            log.error("settlement.refused", job_id=str(refused.job_id), error=str(fault))
            self._on_settled([], [refused])
        else:
            self._singly = not isinstance(fault, psycopg.OperationalError)
        self._rung = True
        self._turn.set()

    def _open(self) -> Pipe:
        if self._connection is None or self._pipe is None:
            self._connection = psycopg.connect(
                self._url, autocommit=True, application_name="worker-queue", connect_timeout=5
            )
            self._pipe = Pipe(self._connection)
        return self._pipe

    def _take_turn(self) -> None:
        limit = self._limit()
        settlements = self._next_settlements()
        marks = list(self._marks)
        releases = list(self._releases)
        if not (limit or settlements or marks or releases):
            return
        taken, ended, rung = self._transaction(limit, settlements, marks, releases)
        # Only now that they are committed are they forgotten.
        for done, kept in (
            (settlements, self._settlements),
            (marks, self._marks),
            (releases, self._releases),
        ):
            for _ in done:
                kept.popleft()
        if settlements:
            self._on_settled(ended, settlements)
        if rung:
            self._on_moved(rung)
        if self._settlements:
            self._turn.set()
        else:
            self._singly = False
        if taken:
            self._on_claimed(taken)
            self._note_claim(taken, limit)

    def _next_settlements(self) -> list[Settlement]:
        """What is settled together: kept answers of one statement have a bound, one always goes."""
        if self._singly:
            return list(self._settlements)[:1]
        size, taken = 0, list[Settlement]()
        for settlement in list(self._settlements):
            size += len(settlement.answer or "")
            if taken and size > _MOST_ANSWER_CHARS:
                break
            taken.append(settlement)
        return taken

    def _limit(self) -> int:
        """How many to claim: none unless something says there may be work."""
        if not self._claiming:
            return 0
        if not (self._rung or self._floor.due(monotonic())):
            return 0
        limit = min(self._capacity() + len(self._settlements), _MAX_CLAIM)
        if limit > 0:
            self._rung = False
        return max(0, limit)

    def _transaction(
        self,
        limit: int,
        settlements: list[Settlement],
        marks: list[Progress],
        releases: list[Release],
    ) -> tuple[list[Claimed], list[Settled], set[str]]:
        pipe = self._open()
        moving = self._send_moves(pipe, settlements)
        ending = settle(pipe, settlements) if settlements else None
        if marks:
            claims.send_renewal(pipe, marks, lease_seconds=self._lease_seconds)
        for forgive in (True, False):
            jobs = [(r.job_id, r.fence) for r in releases if r.forgive is forgive]
            if jobs:
                claims.send_release(pipe, jobs, forgive=forgive)
        lightly = not (settlements or marks or releases)
        claiming = self._send_claim(pipe, limit, lightly=lightly) if limit else None
        pipe.finish()
        return (
            claims.claimed(claiming) if claiming else [],
            settled(ending) if ending else [],
            set(moved(moving).values()) if moving else set(),
        )

    def _send_moves(self, connection: Pipe, settlements: list[Settlement]) -> Answer | None:
        """Moves what may go on elsewhere: settling it then finds it gone."""
        moves: list[Move] = [m for m in map(move_of, settlements) if m is not None]
        if not moves:
            return None
        ids = [s.job_id for s in settlements]
        return send_moves(connection, moves, with_windows_of=ids)

    def _send_claim(self, connection: Pipe, limit: int, *, lightly: bool) -> Answer:
        return claims.send_claim(
            connection,
            deployment_id=self._deployment_id,
            worker=self._worker,
            limit=limit,
            lease_seconds=self._lease_seconds,
            floor=self._floor.next(monotonic()),
            lightly=lightly,
        )

    def _note_claim(self, taken: list[Claimed], limit: int) -> None:
        self._floor.note(taken[0].start_tag, monotonic())
        if len(taken) >= limit:
            # More may wait: for this worker when a slot is free, for others now.
            self._rung = True
            self._on_more()
            if self._capacity() > 0:
                self._turn.set()
