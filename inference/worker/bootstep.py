"""Ties the runtime to the Celery worker's life: started with it, drained before it ends."""

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps

from portal.core.env import env

if TYPE_CHECKING:
    from inference.worker.runtime import InferenceRuntime

log = structlog.get_logger(__name__)

_runtime: "InferenceRuntime | None" = None


def current_runtime() -> "InferenceRuntime | None":
    """This process's runtime, if it is an inference worker."""
    return _runtime


def _end_with_thread(fault: threading.ExceptHookArgs) -> None:
    """A worker that has lost a thread serves nobody: it stops, and is started afresh."""
    name = fault.thread.name if fault.thread is not None else ""
    log.error("thread.died", thread=name, error=repr(fault.exc_value))
    os.kill(os.getpid(), signal.SIGTERM)


class InferenceStep(bootsteps.StartStopStep):
    """Holds the model for as long as the worker runs."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        # Celery reads this module before Django is set up; the runtime needs Django's models.
        from inference.worker.runtime import InferenceRuntime
        from inference.worker.settings import read_assignment

        threading.excepthook = _end_with_thread
        global _runtime
        _runtime = InferenceRuntime(env(), read_assignment(env()))
        _runtime.start()

    def stop(self, parent: Any) -> None:
        if _runtime is not None:
            _runtime.drain()

    terminate = stop
