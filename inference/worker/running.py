"""The jobs a worker runs, and what has happened to each so far."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from inference.engines.base import Done, Failed
from inference.worker.claims import Claimed, Progress
from inference.worker.detailed import DetailedAnswer
from portal.core.crypto import Cipher


def engine_id(job_id: UUID, fence: int) -> str:
    """What the engine knows a claim of a job by."""
    return f"{job_id.hex}:{fence}"


@dataclass(slots=True)
class RunningJob:
    """One claimed job.

    Attributes:
        published: completion tokens whose text has reached the broker: the watermark.
        pieces: text of a job that is answered in one piece, gathered until it ends.
        gathered: completion tokens of that text.
        lost: nothing more of it may be sent: another claim has it, it has ended elsewhere, or
            a piece of its stream did not reach the broker.
        answer: what is gathered of an answer that is more than a text; None of any other.
        ending: the engine's terminal event, or the fault that ends it; None while it runs.
        engine_id: what the engine knows this run by; another claim of the job has another.
    """

    claim: Claimed
    cipher: Cipher
    published: int = 0
    pieces: list[str] = field(default_factory=list)
    gathered: int = 0
    first_token_at: datetime | None = None
    lost: bool = False
    answer: DetailedAnswer | None = None
    ending: Done | Failed | None = None
    engine_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.engine_id = engine_id(self.claim.id, self.claim.fence)

    @property
    def shown(self) -> bool:
        """Whether its caller may have seen text: then it must never run again."""
        return self.claim.stream and self.first_token_at is not None

    def saw_token(self) -> bool:
        """Notes the first token's time; whether this was it."""
        if self.first_token_at is not None:
            return False
        self.first_token_at = datetime.now(UTC)
        return True

    @property
    def kept(self) -> bool:
        """Whether no gateway waits for it: its answer is kept for whoever asked."""
        return not self.claim.gateway

    def whole(self, ending: Done | Failed) -> str:
        """All that was gathered, as it is told in one piece."""
        if self.answer is None or isinstance(ending, Failed):
            return "".join(self.pieces)
        return self.answer.document(ending)

    def progress(self) -> Progress:
        watermark = self.published if self.claim.stream else 0
        if self.kept:
            # Delivered to nobody, so it is no charge and may run again: it tells how far it is.
            watermark = self.gathered
        return Progress(self.claim.id, self.claim.fence, watermark, self.first_token_at)


class Running:
    """All running jobs of a worker, by the id the engine knows them by; thread-safe.

    Attributes:
        slots: of the engine that they take: one a choice.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, RunningJob] = {}
        self._empty = threading.Condition(self._lock)
        self.slots = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: RunningJob) -> None:
        with self._lock:
            self._jobs[job.engine_id] = job
            self.slots += job.claim.parameters.n

    def remove(self, jobs: Iterable[RunningJob]) -> None:
        with self._lock:
            for job in jobs:
                if self._jobs.pop(job.engine_id, None) is not None:
                    self.slots -= job.claim.parameters.n
            if not self._jobs:
                self._empty.notify_all()

    def get(self, engine_id: str) -> RunningJob | None:
        return self._jobs.get(engine_id)

    def all(self) -> list[RunningJob]:
        with self._lock:
            return list(self._jobs.values())

    def of_job(self, job_id: UUID) -> RunningJob | None:
        return next((job for job in self.all() if job.claim.id == job_id), None)

    def wait_empty(self, timeout: float) -> bool:
        with self._lock:
            return self._empty.wait_for(lambda: not self._jobs, timeout)
