"""That an app runs in Dify: what its own verbs have to ask and to tell then.

Every function runs inside the tenant's scope.
"""

from dataclasses import dataclass

from knowledge.applications.dify.dsl import check_renderable, dsl_version
from knowledge.applications.spec import AppSpec
from knowledge.models import App, AppDeployment, AppMode, Connection, RemoteObject, SyncState
from knowledge.sync.wakes import wake


def deployment_of(app: App) -> AppDeployment | None:
    """Where the app runs in Dify; None if it runs in the portal."""
    return AppDeployment.objects.select_related("connection").filter(app_id=app.pk).first()


@dataclass(frozen=True, slots=True)
class Standing:
    """How an app does in Dify.

    Attributes:
        live: the version that answers there; 0 for none.
        state: a ``SyncState``.
        error: what stands in the way, in a sentence; else empty.
        remote_id: the app's in Dify; empty before it is there.
    """

    connection: Connection
    live: int
    state: str
    error: str
    remote_id: str

    @property
    def state_in_words(self) -> str:
        return str(SyncState(self.state).label)


def standing_of(app: App) -> Standing | None:
    """How a deployed app does; None if it runs in the portal."""
    deployment = deployment_of(app)
    if deployment is None:
        return None
    link = RemoteObject.objects.filter(
        connection_id=deployment.connection_id, kind="app", local_id=app.pk
    ).first()
    if link is None:
        return Standing(deployment.connection, 0, SyncState.WAITING, "", "")
    live = (link.sent.get("live") or {}).get("version", 0)
    return Standing(deployment.connection, live, link.state, link.error, link.remote_id)


def check_publishable(app: App, spec: AppSpec) -> None:
    """Refuses what Dify has no words for, if the app runs there.

    Raises:
        Unrenderable: saying what, and what to do.
    """
    deployment = deployment_of(app)
    if deployment is not None:
        dsl_version(deployment.connection.version)
        check_renderable(spec, AppMode(app.mode))


def follow(app: App) -> None:
    """Has Dify follow a change of the app."""
    deployment = deployment_of(app)
    if deployment is not None:
        wake(deployment.connection_id)
