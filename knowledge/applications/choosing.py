"""Which backend an app has."""

from inference.jobs.live import LiveJobs
from knowledge.applications.backends import Backend
from knowledge.models import App
from knowledge.runner import Runner


class Backends:
    """The backends of one event loop.

    Args:
        live: the jobs that it follows.
    """

    def __init__(self, live: LiveJobs) -> None:
        self._runner = Runner(live)

    def of(self, app: App) -> Backend:
        """Where an app runs now; inside its tenant's scope."""
        return self._runner
