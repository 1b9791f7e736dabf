"""Keeping in step on the management API: the plan, what is in the way, and what to decide."""

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api import sync_serializers as shapes
from knowledge.connections.selectors import get_connection
from knowledge.models import Connection, SyncState
from knowledge.sync import selectors, services
from knowledge.sync.planning import Step
from knowledge.sync.words import what_of
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action

_MOST_STEPS: Final = 500


class SyncView(PortalView):
    """How a connection is kept in step."""

    actions = {
        "GET": Action.CONNECTION_READ,
        "POST": Action.KNOWLEDGE_EDIT,
        "PATCH": Action.CONNECTION_EDIT,
    }

    @extend_schema(operation_id="connections_sync_read", responses=shapes.SyncSerializer)
    def get(self, request: Request, connection_id: str) -> Response:
        own_tenant(request)
        return _sync(get_connection(parse_id(connection_id)))

    @extend_schema(
        operation_id="connections_sync_now", request=None, responses=shapes.SyncSerializer
    )
    def post(self, request: Request, connection_id: str) -> Response:
        """Has Dify looked at, and everything tried again that waits, as soon as may be."""
        own_tenant(request)
        parsed = parse_id(connection_id)
        services.sync_now(context=api_context(request), connection_id=parsed)
        return _sync(get_connection(parsed))

    @extend_schema(
        operation_id="connections_sync_pause",
        request=shapes.PausedSerializer,
        responses=shapes.SyncSerializer,
    )
    def patch(self, request: Request, connection_id: str) -> Response:
        """Stops keeping it in step, or has it go on."""
        own_tenant(request)
        parsed = parse_id(connection_id)
        sent = self.valid(shapes.PausedSerializer, request)
        services.set_paused(context=api_context(request), connection_id=parsed, **sent)
        return _sync(get_connection(parsed))


def _sync(connection: Connection) -> Response:
    sync = selectors.sync_of(connection)
    failing = sync is not None and sync.failing_since is not None
    told = {
        "paused": sync is not None and sync.paused,
        "observed_at": sync and sync.observed_at,
        "problem": {
            "code": sync.error_code,
            "message": sync.error,
            "since": sync.failing_since,
        }
        if sync is not None and failing
        else None,
        "queue": selectors.queue_of(connection),
    }
    return Response(shapes.SyncSerializer(told).data)


class PlanView(PortalView):
    """What would be done now in a connection's workspace."""

    actions = {"GET": Action.CONNECTION_READ}

    @extend_schema(operation_id="connections_plan", responses=shapes.PlanSerializer)
    def get(self, request: Request, connection_id: str) -> Response:
        own_tenant(request)
        connection = get_connection(parse_id(connection_id))
        sync, steps = selectors.sync_of(connection), selectors.steps_of(connection)
        told = {
            "observed_at": sync and sync.observed_at,
            "total": len(steps),
            "steps": [_told(step) for step in steps[:_MOST_STEPS]],
        }
        return Response(shapes.PlanSerializer(told).data)


def _told(step: Step) -> dict[str, Any]:
    return {
        "verb": step.verb,
        "why": step.why,
        "kind": step.kind,
        "name": step.label,
        "remote_id": step.link.remote_id if step.link else "",
        "aspects": sorted(step.aspects),
        "what": what_of(step),
        "object_id": step.link.pk if step.link else None,
    }


class RemoteObjectsView(PortalView):
    """What stands in a connection's workspace, or is to stand there."""

    actions = {"GET": Action.CONNECTION_READ}

    @extend_schema(
        operation_id="connections_objects_list",
        parameters=[OpenApiParameter("state", enum=SyncState.values)],
        responses=shapes.RemoteObjectSerializer(many=True),
    )
    def get(self, request: Request, connection_id: str) -> Response:
        own_tenant(request)
        found = selectors.remote_objects(get_connection(parse_id(connection_id)))
        state = request.query_params.get("state")
        if state is not None:
            if state not in SyncState.values:
                raise Invalid("'state' is no state of an object.", param="state")
            found = found.filter(state=state)
        return self.page(request, found, shapes.RemoteObjectSerializer)


class DecideView(PortalView):
    """Decides which version of an object holds that was changed in Dify."""

    actions = {"POST": Action.KNOWLEDGE_EDIT}

    @extend_schema(
        operation_id="remote_objects_decide",
        request=shapes.DecisionSerializer,
        responses=shapes.RemoteObjectSerializer,
    )
    def post(self, request: Request, object_id: str) -> Response:
        sent = self.valid(shapes.DecisionSerializer, request)
        decided = services.decide(
            context=api_context(request), remote_object_id=parse_id(object_id), **sent
        )
        return Response(shapes.RemoteObjectSerializer(decided).data)


class DeletionReceiptsView(PortalView):
    """What was deleted in Dify, newest first."""

    actions = {"GET": Action.CONNECTION_READ}

    @extend_schema(
        operation_id="deletion_receipts_list",
        responses=shapes.DeletionReceiptSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, selectors.receipts(), shapes.DeletionReceiptSerializer)
