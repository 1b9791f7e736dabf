"""A tenant whose apps run in a double of Dify."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from knowledge.applications.dify.services import deploy_app
from knowledge.connections.services import share_connection
from knowledge.models import App, KnowledgeBase, SyncState
from knowledge.services import create_knowledge_base
from portal.core.actors import Context
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation
from tests.knowledge.apps.support import make_app
from tests.knowledge.dify.double.state import App as AppThere
from tests.knowledge.sync.bench import Bench


class AppBench(Bench):
    """What a test of apps on Dify needs.

    Attributes:
        model: one that the portal serves.
        portal: the address that Dify is told.
    """

    model: str
    portal: str

    def app(self, *, base: KnowledgeBase | None = None, deployed: bool = True, **spec: Any) -> App:
        """A published app that is to run in Dify."""
        app = make_app(self.tenant, self.model, base=base, **spec)
        if deployed:
            deploy_app(context=self.context, app_id=app.pk, connection_id=self.connection.pk)
        return app

    def portal_base(self, name: str = "Manual") -> KnowledgeBase:
        """A knowledge base that the portal keeps itself."""
        return create_knowledge_base(context=self.context, name=name, embedding_model="")

    def shared_with(self, tenant: Organisation, administrator: Context) -> "AppBench":
        """The same workspace, shared with another tenant of the organisation."""
        inside = replace(administrator, tenant_id=self.tenant.id)
        made = share_connection(
            context=inside,
            connection_id=self.connection.pk,
            tenant_id=tenant.id,
            organisation="Acme Group",
        )
        with tenant_scope(self.context):
            self.connection.refresh_from_db()
        other = replace(self, tenant=tenant)
        other.connection, other.model = made, self.model
        return other

    def there(self, app: App) -> AppThere:
        """The app in Dify."""
        return self.double.own.apps[self.link(app.pk).remote_id]

    def prompts(self, app: App) -> list[str]:
        """What is live asks the model."""
        node = self.there(app).node("llm")
        said = [part["text"] for part in node["prompt_template"] if part["text"]]
        return [*said, node["memory"]["query_prompt_template"]]

    def live(self, app: App) -> Mapping[str, Any]:
        """What the portal knows to be live there."""
        found: Mapping[str, Any] = self.link(app.pk).sent["live"]
        return found

    def apps_in_step(self) -> bool:
        return all(link.state == SyncState.IN_STEP for link in self.links(kind="app"))
