"""Where an app runs, on its page: in the portal, or in a connection's Dify."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django import forms
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from knowledge.admin.base_forms import EmptyForm
from knowledge.applications.dify.deployed import Standing, deployment_of, standing_of
from knowledge.applications.dify.services import deploy_app, undeploy_app
from knowledge.connections.selectors import connections
from knowledge.models import App, SyncState
from portal.core.pages import INPUT, FormPage, ServiceForm, context_of, in_words
from tenants.permissions import Action


class DeployForm(ServiceForm):
    """In which connection's Dify an app is to run."""

    connection_id = forms.ChoiceField(label=_("Connection"), widget=forms.Select(attrs=INPUT))

    def __init__(self, request: HttpRequest, subject: App | None = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        field = self.fields["connection_id"]
        field.choices = [(str(one.pk), one.name) for one in connections()]  # type: ignore[attr-defined]


def _deploy(request: HttpRequest, app: App, data: dict[str, Any]) -> str:
    deploy_app(
        context=context_of(request), app_id=app.pk, connection_id=UUID(data["connection_id"])
    )
    return _page(app)


def _undeploy(request: HttpRequest, app: App, _data: dict[str, Any]) -> str:
    undeploy_app(context=context_of(request), app_id=app.pk)
    return _page(app)


def _page(app: App) -> str:
    return reverse("admin:knowledge_app_change", args=[app.pk])


DEPLOYMENT_PAGES = (
    FormPage(
        "deploy",
        Action.APP_EDIT,
        _("Run in Dify"),
        DeployForm,
        _deploy,
        button=_("Run in Dify"),
        intro=_(
            "The app is put there in the background, and callers reach it by the same address. "
            "Conversations begin anew."
        ),
        done=_("The app is being put into Dify."),
        offered=lambda app: deployment_of(app) is None and connections().exists(),
    ),
    FormPage(
        "undeploy",
        Action.APP_EDIT,
        _("Run in the portal"),
        EmptyForm,
        _undeploy,
        button=_("Run in the portal"),
        intro=_("Callers get it from here at once. In Dify the app and its memory are deleted."),
        done=_("The app runs in the portal."),
        danger=True,
        offered=lambda app: deployment_of(app) is not None,
    ),
)


def where_context(app: App) -> dict[str, Any]:
    """What the page says of where the app runs; without a connection there is nothing to say."""
    found = standing_of(app)
    if found is None:
        return {"where": None}
    return {
        "where": {
            "label": (_KINDS[found.state], _words(app, found)),
            "connection": found.connection.name,
            "link": reverse("admin:knowledge_connection_change", args=[found.connection.pk]),
            "error": in_words(found.error) if found.state == SyncState.FAILED else "",
            "conflict": found.state == SyncState.CONFLICT,
            "remote_id": found.remote_id,
        }
    }


_KINDS: Final[Mapping[str, str]] = {
    SyncState.WAITING: "info",
    SyncState.INDEXING: "info",
    SyncState.IN_STEP: "success",
    SyncState.CONFLICT: "warning",
    SyncState.FAILED: "danger",
}


def _words(app: App, standing: Standing) -> str:
    if not standing.live:
        return gettext("Not there yet")
    if not app.published:
        return gettext("Withdrawn")
    if standing.live != app.published and standing.state == SyncState.FAILED:
        return gettext("Version %(live)s answers, %(next)s can't be put there") % {
            "live": standing.live,
            "next": app.published,
        }
    if standing.live != app.published:
        return gettext("Version %(live)s answers, %(next)s is on its way") % {
            "live": standing.live,
            "next": app.published,
        }
    return gettext("Version %(live)s answers") % {"live": standing.live}
