"""Verbs of apps on Dify: put there, and taken back."""

from uuid import UUID

from knowledge.applications.dify.deployed import check_publishable, deployment_of
from knowledge.applications.dify.dsl import dsl_version
from knowledge.applications.dify.portal import portal_url
from knowledge.applications.events import AppEvent
from knowledge.applications.selectors import get_app, published_version
from knowledge.applications.spec import read_spec
from knowledge.connections.selectors import get_connection
from knowledge.models import App, AppDeployment, Connection
from knowledge.sync.wakes import wake
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.errors import Conflict
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant


class NoPlugin(Conflict):
    """Dify can't call models that speak OpenAI's protocol."""

    code = "dify_plugin_missing"

    def __init__(self) -> None:
        super().__init__(
            "The workspace has no plugin for the portal's models: install 'OpenAI-API-compatible' "
            "in Dify's marketplace, and check the connection."
        )


def deploy_app(*, context: Context, app_id: UUID, connection_id: UUID) -> AppDeployment:
    """Lets an app run in a connection's workspace, from when it is there.

    It is put there in the background; until then callers are told to come back. The version that
    is published runs there, and each that is published later.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app or connection here.
        Conflict: it runs in a Dify already, Dify has not the plugin, or PORTAL_URL is not set.
        Unrenderable: Dify has no words for the published version.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        app = get_app(app_id, App.objects.select_for_update())
        connection = get_connection(connection_id)
        _check(app, connection)
        row = AppDeployment(
            tenant_id=app.tenant_id,
            app=app,
            connection=connection,
            created_by_id=context.user_id,
        )
        with intent_about(AppEvent.DEPLOY, app, connection=connection.name):
            row.save(force_insert=True)
            if app.published:
                check_publishable(app, read_spec(published_version(app).spec))
        wake(connection.pk)
    return row


def undeploy_app(*, context: Context, app_id: UUID) -> None:
    """Lets an app run in the portal again, at once; in Dify it is deleted.

    Its conversations begin anew: what was said stays here, and Dify's memory of it is gone.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app here.
        Conflict: it runs in the portal.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        app = get_app(app_id, App.objects.select_for_update())
        row = deployment_of(app)
        if row is None:
            raise Conflict("The app runs in the portal already.")
        with intent_about(AppEvent.UNDEPLOY, app, connection=row.connection.name):
            row.delete()
        wake(row.connection_id)


def _check(app: App, connection: Connection) -> None:
    present = deployment_of(app)
    if present is not None:
        raise Conflict(
            f"The app runs at '{present.connection.name}': let it run in the portal first."
        )
    dsl_version(connection.version)
    if not connection.capabilities["gateway_provider"]:
        raise NoPlugin
    portal_url()
