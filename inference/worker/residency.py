"""Whether the worker holds its model, and whether it claims: as administrators want it.

One thread goes from state to state. What is wanted stands in the worker's row and comes back with
each heartbeat, so an order outlives the process.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psycopg
import structlog

from inference.backlog import WORKER_SECONDS
from inference.engines import create_engine
from inference.engines.base import Emit, Engine, EngineStats
from inference.models.dispatch import DesiredState, WorkerState
from inference.worker.heartbeat import Presence
from inference.worker.running import Running
from inference.worker.settings import Assignment, read_deployment
from portal.core.errors import PortalError
from portal.core.heap import freeze_heap

log = structlog.get_logger(__name__)

# How soon a wait notices that something else is wanted.
_LOOK_SECONDS: Final = 0.2
_TURN: Final = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_NEIGHBOUR_FAILED: Final = f"""
SELECT 1 FROM inference_worker w
 WHERE w.deployment_id = %s AND w.id <> %s AND w.state = '{WorkerState.FAILED.value}'
   AND w.heartbeat_at > now() - interval '{WORKER_SECONDS} seconds'
"""


class Wanted(NamedTuple):
    """What the worker is to be; each further generation is an order to load."""

    state: DesiredState
    generation: int


class Residency:
    """Loads, drains, unloads and loads again, one after the other.

    Args:
        emit: receives the engine's events.
        on_open: the model is there: jobs may be claimed.
        on_pause: claims no more; when it returns no claim is under way.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        presence: Presence,
        running: Running,
        emit: Emit,
        on_open: Callable[[], None],
        on_pause: Callable[[], None],
    ) -> None:
        self.assignment = assignment
        self.engine: Engine | None = None
        self.slots = 0
        self.serving = False
        self._presence = presence
        self._running = running
        self._emit = emit
        self._on_open = on_open
        self._on_pause = on_pause
        self._loading: Engine | None = None
        # The generation that was loaded, or tried, last; None before the first.
        self._generation: int | None = None
        self._wanted: Wanted | None = None
        self._news = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="residency", daemon=True)

    def start(self) -> None:
        """Waits for the first word of what is wanted, and follows it."""
        self._thread.start()

    def want(self, state: DesiredState, generation: int) -> None:
        """What the worker's row says; called with each beat."""
        with self._news:
            self._wanted = Wanted(state, generation)
            self._news.notify_all()

    def stats(self) -> EngineStats | None:
        """The engine's figures; None while no model is held."""
        engine = self.engine
        return engine.stats() if engine is not None else None

    def stop(self, timeout: float) -> None:
        """Follows nothing more; a load that is under way is given up."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        if self.engine is None and self._loading is not None:
            # Nobody waits for a model that is still loading.
            self._loading.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def close(self) -> None:
        """Releases the model, if one is held."""
        if self.engine is not None:
            self.engine.close()

    # -- one thread from here ----------------------------------------------------------------

    def _run(self) -> None:
        done: Wanted | None = None
        while True:
            with self._news:
                self._news.wait_for(lambda seen=done: self._stopping or self._wanted != seen)  # type: ignore[misc]
                done = self._wanted
            if self._stopping:
                return
            if done is not None:
                self._follow(done)

    def _follow(self, wanted: Wanted) -> None:
        if wanted.state == DesiredState.UNLOADED:
            if self._drain(wanted):
                self._unload()
            return
        if self.engine is not None and wanted.generation != self._generation:
            self._reload(wanted)
        elif self.engine is None and self._may_load(wanted):
            self._load(wanted.generation)
        if self.engine is None or self._changed(wanted):
            return
        if wanted.state == DesiredState.SERVING:
            self._open()
        elif self._drain(wanted):
            self._tell(WorkerState.DRAINED)

    def _may_load(self, wanted: Wanted) -> bool:
        """A load that failed is tried again when it is asked for, not before."""
        failed = self._presence.state == WorkerState.FAILED
        return not failed or wanted.generation != self._generation

    def _reload(self, wanted: Wanted) -> None:
        """Unloads and loads; one worker of the deployment at a time, while the others serve."""
        with self._turn(wanted) as mine:
            if self._changed(wanted):
                return
            if not mine:
                self._generation = wanted.generation
            elif self._drain(wanted):
                self._unload()
                self._load(wanted.generation)

    @contextmanager
    def _turn(self, wanted: Wanted) -> Iterator[bool]:
        """The deployment's turn to load again; False where another worker has failed to.

        A lock of the database's, which goes with the connection if the process dies.
        """
        if not self.serving:
            yield True
            return
        name, url = self.assignment.name, self.assignment.database_url
        with psycopg.connect(url, autocommit=True, application_name="worker-reload") as connection:
            while not connection.execute(_TURN, [f"reload {name}"]).fetchone()[0]:  # type: ignore[index]
                self._tell(WorkerState.READY, "It waits for its turn to load again.")
                if self._changed(wanted, within=_LOOK_SECONDS):
                    yield True
                    return
            ours = [self._presence.row["deployment"], self._presence.row["id"]]
            failed = connection.execute(_NEIGHBOUR_FAILED, ours).fetchone() is not None
            if failed:
                self._tell(WorkerState.READY, "Not loaded again: another worker failed to.")
            yield not failed

    def _changed(self, wanted: Wanted, *, within: float = 0) -> bool:
        """Whether something else is wanted by now, or the worker stops."""
        with self._news:
            return self._news.wait_for(lambda: self._stopping or self._wanted != wanted, within)

    def _open(self) -> None:
        if self.serving:
            return
        self.serving = True
        self._tell(WorkerState.READY)
        self._on_open()

    def _drain(self, wanted: Wanted) -> bool:
        """Claims no more and waits for what runs; False if something else is wanted meanwhile."""
        if self.serving:
            self.serving = False
            self._tell(WorkerState.DRAINING)
            self._on_pause()
        while not self._running.wait_empty(_LOOK_SECONDS):
            if self._changed(wanted):
                return False
        return True

    def _unload(self) -> None:
        engine, self.engine, self.slots = self.engine, None, 0
        if engine is not None:
            self._tell(WorkerState.DRAINING, "Releasing the model.")
            engine.close()
            del engine
            # What start-up froze holds the old engine too.
            gc.unfreeze()
            gc.collect()
        self._tell(WorkerState.UNLOADED, slots=0, digest="", loaded=None)

    def _load(self, generation: int) -> None:
        first, self._generation = self._generation is None, generation
        try:
            if not first:
                self._tell(WorkerState.LOADING, "Reading the deployment.")
                self.assignment = read_deployment(
                    self.assignment.database_url, self.assignment.name
                )
            self._tell(WorkerState.LOADING, "Starting the engine.")
            engine = self._create()
            self._loading = engine
            self._tell(WorkerState.LOADING, "Loading the weights.")
            engine.load()
        except Exception as fault:  # noqa: BLE001 - logged, and shown to administrators
            if not self._stopping:
                self._refused(fault)
            return
        finally:
            self._loading = None
        if self._stopping:
            engine.close()
            return
        self.slots = engine.stats().slots
        self.engine = engine
        freeze_heap()
        self._presence.hold(self.assignment, self.slots)
        log.info("worker.loaded", deployment=self.assignment.name, slots=self.slots)

    def _create(self) -> Engine:
        assignment = self.assignment
        return create_engine(
            assignment.engine,
            artefact_dir=Path(assignment.artefact_path),
            context_length=assignment.context_length,
            options=assignment.options,
            emit=self._emit,
        )

    def _refused(self, fault: Exception) -> None:
        """Whatever it is: health names it, and nobody waits for a load that has ended."""
        known = isinstance(fault, PortalError)
        message = str(fault) if known else f"{type(fault).__name__}: {fault}"
        log.error(
            "engine.unloadable",
            deployment=self.assignment.name,
            error=message,
            exc_info=None if known else fault,
        )
        self._tell(WorkerState.FAILED, message, slots=0, digest="", loaded=None)

    def _tell(self, state: WorkerState, detail: str = "", **values: object) -> None:
        if not self._stopping:
            self._presence.now(state, detail, **values)
