"""Apps on the management API, and what their callers read of what was said."""

from datetime import date, timedelta

from django.utils import timezone
from django.utils.dateparse import parse_date
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api import app_serializers as shapes
from knowledge.api.serializers import DiffSerializer
from knowledge.api.views import number_in
from knowledge.applications import conversations, selectors, services
from knowledge.applications.calling import callable_app
from knowledge.applications.dify.deployed import standing_of
from knowledge.applications.dify.services import deploy_app, undeploy_app
from knowledge.applications.feedback import delete_conversation, rate_message
from knowledge.applications.spec import read_spec
from knowledge.models import App, Conversation
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action

_READ = Action.APP_READ
_EDIT = Action.APP_EDIT
_CALL = Action.APP_CALL
_MOST_DAYS = 366
_USER = OpenApiParameter("user", description="Whose, as the caller named its user.")


def _app(request: Request, reference: str) -> App:
    own_tenant(request)
    return selectors.get_app(reference)


class AppsView(PortalView):
    """The tenant's apps."""

    actions = {"GET": _READ, "POST": _EDIT}

    @extend_schema(operation_id="apps_list", responses=shapes.AppSerializer(many=True))
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, App.objects.all(), shapes.AppSerializer)

    @extend_schema(
        operation_id="apps_create",
        request=shapes.NewAppSerializer,
        responses={201: shapes.AppSerializer},
    )
    def post(self, request: Request) -> Response:
        sent = self.valid(shapes.NewAppSerializer, request)
        made = services.create_app(context=api_context(request), **sent)
        return Response(shapes.AppSerializer(made).data, status=201)


class AppView(PortalView):
    """One app, by its id or its short name."""

    actions = {"GET": _READ, "PATCH": _EDIT, "DELETE": _EDIT}

    @extend_schema(operation_id="apps_read", responses=shapes.AppSerializer)
    def get(self, request: Request, app: str) -> Response:
        return Response(shapes.AppSerializer(_app(request, app)).data)

    @extend_schema(
        operation_id="apps_edit", request=shapes.EditAppSerializer, responses=shapes.AppSerializer
    )
    def patch(self, request: Request, app: str) -> Response:
        sent = self.valid(shapes.EditAppSerializer, request)
        found = _app(request, app)
        edited = services.edit_app(context=api_context(request), app_id=found.pk, **sent)
        return Response(shapes.AppSerializer(edited).data)

    @extend_schema(operation_id="apps_delete", responses={204: None})
    def delete(self, request: Request, app: str) -> Response:
        """Deletes it with its versions and conversations; withdraw a published one first."""
        services.delete_app(context=api_context(request), app_id=_app(request, app).pk)
        return Response(status=204)


class DeploymentView(PortalView):
    """Where an app runs: in the portal, or in a connection's Dify."""

    actions = {"GET": _READ, "PUT": _EDIT, "DELETE": _EDIT}

    @extend_schema(operation_id="app_deployment_read", responses=shapes.AppDeploymentSerializer)
    def get(self, request: Request, app: str) -> Response:
        return self._shown(_app(request, app))

    @extend_schema(
        operation_id="app_deployment_create",
        request=shapes.NewAppDeploymentSerializer,
        responses={202: shapes.AppDeploymentSerializer},
    )
    def put(self, request: Request, app: str) -> Response:
        """Lets it run in a Dify; it is put there in the background."""
        found = _app(request, app)
        sent = self.valid(shapes.NewAppDeploymentSerializer, request)
        deploy_app(
            context=api_context(request), app_id=found.pk, connection_id=sent["connection_id"]
        )
        return self._shown(found, status=202)

    @extend_schema(
        operation_id="app_deployment_delete", responses={200: shapes.AppDeploymentSerializer}
    )
    def delete(self, request: Request, app: str) -> Response:
        """Lets it run in the portal again; in Dify it is deleted."""
        found = _app(request, app)
        undeploy_app(context=api_context(request), app_id=found.pk)
        return self._shown(found)

    @staticmethod
    def _shown(app: App, status: int = 200) -> Response:
        told = shapes.deployment_json(app, standing_of(app))
        return Response(shapes.AppDeploymentSerializer(told).data, status=status)


class AppVersionsView(PortalView):
    """An app's versions, newest first."""

    actions = {"GET": _READ, "POST": _EDIT}

    @extend_schema(
        operation_id="app_versions_list", responses=shapes.AppVersionSerializer(many=True)
    )
    def get(self, request: Request, app: str) -> Response:
        found = selectors.versions(_app(request, app))
        return self.page(request, found, shapes.AppVersionSerializer)

    @extend_schema(
        operation_id="app_versions_create",
        request=shapes.NewAppVersionSerializer,
        responses={201: shapes.AppVersionSerializer},
    )
    def post(self, request: Request, app: str) -> Response:
        """Adds a draft; the same specification as the newest version's adds none."""
        sent = self.valid(shapes.NewAppVersionSerializer, request)
        found = _app(request, app)
        version = services.add_version(context=api_context(request), app_id=found.pk, **sent)
        return Response(shapes.AppVersionSerializer(version).data, status=201)


class AppDiffView(PortalView):
    """What a version says and another does not."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="app_versions_diff",
        parameters=[
            OpenApiParameter("to", int, description="Number of a version; else the newest."),
            OpenApiParameter("from", int, description="Number of a version; else the one before."),
        ],
        responses=DiffSerializer,
    )
    def get(self, request: Request, app: str) -> Response:
        found = _app(request, app)
        after = number_in(request, "to", found.latest)
        before = number_in(request, "from", max(1, after - 1))
        lines = list(selectors.diff(found, before, after))
        return Response(DiffSerializer({"lines": lines}).data)


class PublishAppView(PortalView):
    """Gives callers a version: the newest, or an earlier one again."""

    actions = {"POST": _EDIT}

    @extend_schema(
        operation_id="apps_publish",
        request=shapes.PublishAppSerializer,
        responses=shapes.AppSerializer,
    )
    def post(self, request: Request, app: str) -> Response:
        sent = self.valid(shapes.PublishAppSerializer, request)
        published = services.publish_app(
            context=api_context(request),
            app_id=_app(request, app).pk,
            number=sent.get("version"),
        )
        return Response(shapes.AppSerializer(published).data)


class WithdrawAppView(PortalView):
    """Publishes no version any more."""

    actions = {"POST": _EDIT}

    @extend_schema(operation_id="apps_withdraw", request=None, responses=shapes.AppSerializer)
    def post(self, request: Request, app: str) -> Response:
        withdrawn = services.withdraw_app(
            context=api_context(request), app_id=_app(request, app).pk
        )
        return Response(shapes.AppSerializer(withdrawn).data)


class AppUsageView(PortalView):
    """What an app was used for, by days in UTC; the last thirty if none are named."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="apps_usage",
        parameters=[OpenApiParameter("from", date), OpenApiParameter("to", date)],
        responses=shapes.AppUsageDaysSerializer,
    )
    def get(self, request: Request, app: str) -> Response:
        found = _app(request, app)
        end = _day(request, "to", timezone.now().date())
        begin = _day(request, "from", end - timedelta(days=29))
        if not 0 <= (end - begin).days < _MOST_DAYS:
            raise Invalid(f"Ask for 1 to {_MOST_DAYS} days at once.", param="from")
        days = selectors.usage(found, begin, end)
        return Response(shapes.AppUsageDaysSerializer({"items": days}).data)


class AppParametersView(PortalView):
    """What a caller needs to know of the published version: its inputs and its words."""

    actions = {"GET": (_CALL, _READ)}

    @extend_schema(operation_id="apps_parameters", responses=shapes.ParametersSerializer)
    def get(self, request: Request, app: str) -> Response:
        own_tenant(request)
        found = callable_app(api_context(request), app)
        version = selectors.published_version(found)
        shown = shapes.parameters_of(found, version, read_spec(version.spec))
        return Response(shapes.ParametersSerializer(shown).data)


class ConversationsView(PortalView):
    """The conversations that the calling key had with an app for one of its users."""

    actions = {"GET": _CALL}

    @extend_schema(
        operation_id="app_conversations_list",
        parameters=[_USER],
        responses=shapes.ConversationSerializer(many=True),
    )
    def get(self, request: Request, app: str) -> Response:
        own_tenant(request)
        context = api_context(request)
        found = conversations.conversations(
            context, callable_app(context, app), request.query_params.get("user", "")
        )
        return self.page(request, found, shapes.ConversationSerializer, prepare=_titled)


class ConversationView(PortalView):
    """One conversation."""

    actions = {"DELETE": _CALL}

    @extend_schema(
        operation_id="app_conversations_delete", parameters=[_USER], responses={204: None}
    )
    def delete(self, request: Request, app: str, conversation_id: str) -> Response:
        """Deletes it with its messages."""
        own_tenant(request)
        delete_conversation(
            context=api_context(request),
            app=app,
            conversation_id=parse_id(conversation_id),
            user=request.query_params.get("user", ""),
        )
        return Response(status=204)


class MessagesView(PortalView):
    """What was said in a conversation, newest first."""

    actions = {"GET": _CALL}

    @extend_schema(
        operation_id="app_messages_list",
        parameters=[_USER],
        responses=shapes.AppMessageSerializer(many=True),
    )
    def get(self, request: Request, app: str, conversation_id: str) -> Response:
        own_tenant(request)
        context = api_context(request)
        conversation = conversations.get_conversation(
            context,
            callable_app(context, app),
            parse_id(conversation_id),
            request.query_params.get("user", ""),
        )
        found = conversations.messages_of(conversation)
        return self.page(request, found, shapes.AppMessageSerializer)


class FeedbackView(PortalView):
    """How an answer was liked."""

    actions = {"POST": _CALL}

    @extend_schema(
        operation_id="app_messages_feedback",
        request=shapes.FeedbackSerializer,
        responses=shapes.AppMessageSerializer,
    )
    def post(self, request: Request, app: str, message_id: str) -> Response:
        own_tenant(request)
        sent = self.valid(shapes.FeedbackSerializer, request)
        rated = rate_message(
            context=api_context(request), app=app, message_id=parse_id(message_id), **sent
        )
        return Response(shapes.AppMessageSerializer(rated).data)


def _titled(found: list[Conversation]) -> list[Conversation]:
    titles = conversations.titles([one.pk for one in found])
    for one in found:
        one.title = titles.get(one.pk, "")  # type: ignore[attr-defined]
    return found


def _day(request: Request, name: str, default: date) -> date:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None:
        raise Invalid(f"'{name}' must be a day, such as 2026-01-31.", param=name)
    return day
