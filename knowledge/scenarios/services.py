"""Installing a scenario in a tenant: knowledge base, app and trigger, by the services of each."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from audit.services import intent
from inference.models import Task
from knowledge.applications.services import create_app, publish_app
from knowledge.models import App, AppMode, Trigger, TriggerKind
from knowledge.scenarios.catalogue import get_scenario
from knowledge.selectors import served_models
from knowledge.services import add_text, create_knowledge_base
from knowledge.triggers.services import create_trigger
from portal.core.actors import Context
from portal.core.errors import Conflict
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant

INSTALL: Final = "scenario.install"

# What calls of the app keep is deleted a day after the last word; its trigger keeps nothing.
_SETTINGS: Final[dict[str, dict[str, Any]]] = {"hipaa": {"keep_days": 1}}


@dataclass(frozen=True, slots=True)
class Installed:
    """What a tenant has of a scenario now."""

    knowledge_base_id: UUID
    app: App
    trigger: Trigger


def install_scenario(*, context: Context, slug: str, model: str | None = None) -> Installed:
    """Makes the scenario's knowledge base, app and trigger in the context's tenant; all or none.

    They are the tenant's own from then on, to be changed and deleted as any.

    Args:
        model: what the app asks; the first that generates here if it is left out.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such scenario.
        Conflict: it is installed already, or no model is served.
        Invalid: no such model.
    """
    for action in (Action.APP_EDIT, Action.KNOWLEDGE_EDIT):
        require(context, action)
    require_tenant(context)
    scenario = get_scenario(slug)
    with (
        tenant_scope(context),
        intent(INSTALL, object_type="knowledge.scenario", object_label=slug),
    ):
        if App.objects.filter(slug=slug).exists():
            raise Conflict(
                f"There is an app '{slug}' already: the scenario is installed.",
                code="scenario_installed",
            )
        chosen = model or next(iter(served_models(Task.GENERATE)), None)
        if chosen is None:
            raise Conflict("No model that generates is served yet.", code="no_model_served")
        base = create_knowledge_base(
            context=context, name=scenario.name, description=scenario.description
        )
        for name, text in scenario.documents.items():
            add_text(context=context, knowledge_base_id=base.pk, name=name, text=text)
        spec: dict[str, Any] = {
            **scenario.app,
            "model": chosen,
            "knowledge": [{"knowledge_base_id": str(base.pk), "top_k": 3}],
        }
        app = create_app(
            context=context,
            slug=slug,
            name=scenario.name,
            description=scenario.description,
            mode=AppMode.RUN,
            spec=spec,
            **_SETTINGS.get(scenario.profile, {}),
        )
        app = publish_app(context=context, app_id=app.pk)
        trigger = create_trigger(
            context=context,
            app_id=app.pk,
            name=scenario.name,
            kind=TriggerKind.EVENT,
            **scenario.trigger,
        )
    return Installed(base.pk, app, trigger)
