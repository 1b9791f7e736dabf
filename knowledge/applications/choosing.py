"""Which backend an app has."""

from inference.jobs.live import LiveJobs
from knowledge.applications.backends import Backend
from knowledge.applications.dify.backend import Channels, DifyBackend
from knowledge.applications.dify.deployed import deployment_of
from knowledge.applications.dify.targets import target_of
from knowledge.models import App, AppMessage
from knowledge.runner import Runner


class Backends:
    """The backends of one event loop.

    Args:
        live: the jobs that it follows.
    """

    def __init__(self, live: LiveJobs) -> None:
        self._runner = Runner(live)
        self._channels = Channels()

    def of(self, app: App, version: int | None = None) -> Backend:
        """Where an app runs now; inside its tenant's scope.

        Args:
            version: which is asked; any but the published one stands nowhere else than here.
        """
        deployment = deployment_of(app)
        if deployment is None or version not in (None, app.published):
            return self._runner
        return DifyBackend(self._channels, target_of(app, deployment))

    def answering(self, app: App, message: AppMessage) -> Backend:
        """Where a message is being answered; inside its tenant's scope."""
        return self._runner if message.job_id is not None else self.of(app)

    async def aclose(self) -> None:
        """Lets the connections to other backends go."""
        await self._channels.aclose()
