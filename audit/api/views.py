"""The audit trail on the management API; each reading is itself an event in it."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from audit.api.serializers import EventDetailSerializer, EventSerializer, FilterSerializer
from audit.selectors import EventFilter, Position, read_event, read_events
from portal.core.api import PortalView
from portal.core.rest import NewestFirstPagination, api_context, own_tenant, parse_id

# The permission table stands a floor above: its actions by their text.
_READ = ("audit.read", "audit.read_all")


def _check_reach(request: Request) -> None:
    """An audit administrator reads every tenant's trail; everyone else has chosen a tenant."""
    if api_context(request).platform_role is None:
        own_tenant(request)


class EventsView(PortalView):
    """Audit events, newest first."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="audit_events_list",
        parameters=[FilterSerializer],
        responses=EventSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        _check_reach(request)
        wanted = FilterSerializer(data=request.query_params)
        wanted.is_valid(raise_exception=True)
        pages = NewestFirstPagination()
        before = request.query_params.get("before")
        found = read_events(
            api_context(request),
            EventFilter(**wanted.validated_data),
            limit=pages.limit(request),
            before=None if before is None else Position.parse(before),
        )
        following = None if found.following is None else str(found.following)
        pages.next = pages.next_path(request, following)
        return pages.get_paginated_response(EventSerializer(found.events, many=True).data)


class EventView(PortalView):
    """One audit event with its before and after."""

    actions = {"GET": _READ}

    @extend_schema(operation_id="audit_events_read", responses=EventDetailSerializer)
    def get(self, request: Request, event_id: str) -> Response:
        _check_reach(request)
        event, _ = read_event(api_context(request), parse_id(event_id))
        return Response(EventDetailSerializer(event).data)
