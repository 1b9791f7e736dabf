"""Where a deployed app is called; inside the tenant's scope."""

from knowledge.applications.dify.backend import Target
from knowledge.applications.dify.desired import datasets_of
from knowledge.applications.dify.portal import portal_in
from knowledge.applications.dify.secrets import open_key
from knowledge.models import App, AppDeployment, AppMode, RemoteObject


def target_of(app: App, deployment: AppDeployment) -> Target | None:
    """Where to call a deployed app, whose live version answers; None while there is none."""
    link = RemoteObject.objects.filter(
        connection_id=deployment.connection_id, kind="app", local_id=app.pk
    ).first()
    if link is None or not link.sent.get("live") or deployment.sealed is None:
        return None
    connection = deployment.connection
    there = datasets_of(connection, portal_in(connection))
    return Target(
        connection.base_url,
        open_key(deployment),
        AppMode(app.mode),
        {dataset_id: base_id for base_id, dataset_id in there.items()},
    )
