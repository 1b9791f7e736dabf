"""Triggers, their runs, and the endpoint that events come in by."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api import trigger_serializers as shapes
from knowledge.triggers import selectors, services
from knowledge.triggers.intake import MOST_ID_CHARS, Incoming, accept_events
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action


class EventsView(PortalView):
    """Events of a stream, which triggers look at."""

    actions = {"POST": Action.EVENT_SEND}

    @extend_schema(
        operation_id="events_send",
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                str,
                OpenApiParameter.HEADER,
                description="Names the events that have no id: the same request again adds none.",
            )
        ],
        request=shapes.EventsSerializer,
        responses={202: shapes.AcceptedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Keeps the events, all or none; what is acknowledged is not lost."""
        sent = self.valid(shapes.EventsSerializer, request)
        accepted = accept_events(
            context=api_context(request),
            stream=sent["stream"],
            events=[Incoming(**event) for event in sent["events"]],
            idempotency_key=_idempotency_key(request),
        )
        return Response(shapes.AcceptedSerializer(accepted).data, status=202)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= MOST_ID_CHARS and key.isascii()):
        raise Invalid(
            f"'Idempotency-Key' must have 1 to {MOST_ID_CHARS} ASCII characters.",
            param="Idempotency-Key",
        )
    return key


class TriggersView(PortalView):
    """What starts the tenant's apps by itself."""

    actions = {"GET": Action.APP_READ, "POST": Action.APP_EDIT}

    @extend_schema(operation_id="triggers_list", responses=shapes.TriggerSerializer(many=True))
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, selectors.triggers(), shapes.TriggerSerializer)

    @extend_schema(
        operation_id="triggers_create",
        request=shapes.NewTriggerSerializer,
        responses={201: shapes.TriggerSerializer},
    )
    def post(self, request: Request) -> Response:
        sent = self.valid(shapes.NewTriggerSerializer, request)
        made = services.create_trigger(context=api_context(request), **sent)
        return Response(shapes.TriggerSerializer(selectors.get_trigger(made.pk)).data, status=201)


class TriggerView(PortalView):
    """One trigger."""

    actions = {"GET": Action.APP_READ, "PATCH": Action.APP_EDIT, "DELETE": Action.APP_EDIT}

    @extend_schema(operation_id="triggers_read", responses=shapes.TriggerSerializer)
    def get(self, request: Request, trigger_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_trigger(parse_id(trigger_id))
        return Response(shapes.TriggerSerializer(found).data)

    @extend_schema(
        operation_id="triggers_edit",
        request=shapes.EditTriggerSerializer,
        responses=shapes.TriggerSerializer,
    )
    def patch(self, request: Request, trigger_id: str) -> Response:
        sent = self.valid(shapes.EditTriggerSerializer, request)
        edited = services.edit_trigger(
            context=api_context(request), trigger_id=parse_id(trigger_id), **sent
        )
        return Response(shapes.TriggerSerializer(selectors.get_trigger(edited.pk)).data)

    @extend_schema(operation_id="triggers_delete", responses={204: None})
    def delete(self, request: Request, trigger_id: str) -> Response:
        """Deletes it with the record of its runs."""
        services.delete_trigger(context=api_context(request), trigger_id=parse_id(trigger_id))
        return Response(status=204)


class StartTriggerView(PortalView):
    """Starts a trigger's app now."""

    actions = {"POST": Action.APP_EDIT}

    @extend_schema(
        operation_id="triggers_start",
        request=shapes.StartTriggerSerializer,
        responses={202: shapes.TriggerRunSerializer},
    )
    def post(self, request: Request, trigger_id: str) -> Response:
        sent = self.valid(shapes.StartTriggerSerializer, request)
        run = services.start_trigger(
            context=api_context(request), trigger_id=parse_id(trigger_id), **sent
        )
        return Response(shapes.TriggerRunSerializer(run).data, status=202)


class TriggerRunsView(PortalView):
    """The runs of a trigger, newest first."""

    actions = {"GET": Action.APP_READ}

    @extend_schema(
        operation_id="trigger_runs_list", responses=shapes.TriggerRunSerializer(many=True)
    )
    def get(self, request: Request, trigger_id: str) -> Response:
        own_tenant(request)
        trigger = selectors.get_trigger(parse_id(trigger_id))
        found = selectors.runs().filter(trigger_id=trigger.pk)
        return self.page(request, found, shapes.TriggerRunSerializer)


class TriggerRunView(PortalView):
    """One run with what it was given and answered; for those who may change the app."""

    actions = {"GET": Action.APP_EDIT}

    @extend_schema(operation_id="trigger_runs_read", responses=shapes.WholeTriggerRunSerializer)
    def get(self, request: Request, run_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_run(parse_id(run_id))
        return Response(shapes.WholeTriggerRunSerializer(found).data)
