"""Ties the runtime to the Celery worker's life: started with it, drained before it ends."""

from typing import TYPE_CHECKING, Any

from celery import bootsteps

from portal.core.env import env

if TYPE_CHECKING:
    from inference.worker.runtime import InferenceRuntime

_runtime: "InferenceRuntime | None" = None


def current_runtime() -> "InferenceRuntime | None":
    """This process's runtime, if it is an inference worker."""
    return _runtime


class InferenceStep(bootsteps.StartStopStep):
    """Holds the model for as long as the worker runs."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        # Celery reads this module before Django is set up; the runtime needs Django's models.
        from inference.worker.runtime import InferenceRuntime
        from inference.worker.settings import read_assignment

        global _runtime
        _runtime = InferenceRuntime(env(), read_assignment(env()))
        _runtime.start()

    def stop(self, parent: Any) -> None:
        if _runtime is not None:
            _runtime.drain()

    terminate = stop
