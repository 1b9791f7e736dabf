"""Routes on the management API: the platform's, so every read is in the platform's scope."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from inference import route_services, selectors
from inference.api import route_serializers as shapes
from inference.route_services import NewTarget
from portal.core.api import PortalView
from portal.core.rest import api_context, parse_id
from tenants.permissions import Action


def _targets(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body, with its targets as the service takes them."""
    if "targets" in fields:
        fields["targets"] = [NewTarget(**target) for target in fields["targets"]]
    return fields


class RoutesView(PortalView):
    """Names that callers can put into `model`, and the deployments behind them."""

    actions = {"GET": Action.ROUTE_READ, "POST": Action.ROUTE_EDIT}

    @extend_schema(operation_id="routes_list", responses=shapes.RouteSerializer(many=True))
    def get(self, request: Request) -> Response:
        with selectors.routes_scope(api_context(request)):
            return self.page(request, selectors.routes(), shapes.RouteSerializer)

    @extend_schema(
        operation_id="routes_create",
        request=shapes.NewRouteSerializer,
        responses={201: shapes.RouteSerializer},
    )
    def post(self, request: Request) -> Response:
        fields = _targets(self.valid(shapes.NewRouteSerializer, request))
        route = route_services.create_route(context=api_context(request), **fields)
        return _shown(request, str(route.pk), 201)


class RouteView(PortalView):
    """One route."""

    actions = {
        "GET": Action.ROUTE_READ,
        "PATCH": Action.ROUTE_EDIT,
        "DELETE": Action.ROUTE_EDIT,
    }

    @extend_schema(operation_id="routes_read", responses=shapes.RouteSerializer)
    def get(self, request: Request, route_id: str) -> Response:
        return _shown(request, route_id)

    @extend_schema(
        operation_id="routes_edit",
        request=shapes.RouteChangeSerializer,
        responses=shapes.RouteSerializer,
    )
    def patch(self, request: Request, route_id: str) -> Response:
        fields = _targets(self.valid(shapes.RouteChangeSerializer, request))
        route_services.edit_route(
            context=api_context(request), route_id=parse_id(route_id), **fields
        )
        return _shown(request, route_id)

    @extend_schema(operation_id="routes_delete", responses={204: None})
    def delete(self, request: Request, route_id: str) -> Response:
        route_services.delete_route(context=api_context(request), route_id=parse_id(route_id))
        return Response(status=204)


class RouteOverridesView(PortalView):
    """The tenants that have this route under a name, whatever that means to others."""

    actions = {"GET": Action.ROUTE_READ, "POST": Action.ROUTE_EDIT}

    @extend_schema(
        operation_id="route_overrides_list", responses=shapes.OverrideSerializer(many=True)
    )
    def get(self, request: Request, route_id: str) -> Response:
        with selectors.routes_scope(api_context(request)):
            route = selectors.get_route(parse_id(route_id))
            found = route.overrides.select_related("tenant")
            return self.page(request, found, shapes.OverrideSerializer)

    @extend_schema(
        operation_id="route_overrides_set",
        request=shapes.NewOverrideSerializer,
        responses={201: shapes.OverrideSerializer},
    )
    def post(self, request: Request, route_id: str) -> Response:
        fields = self.valid(shapes.NewOverrideSerializer, request)
        context = api_context(request)
        made = route_services.set_route_override(
            context=context, route_id=parse_id(route_id), **fields
        )
        with selectors.routes_scope(context):
            return Response(shapes.OverrideSerializer(made).data, 201)


class RouteOverrideView(PortalView):
    """One tenant's own route under a name."""

    actions = {"DELETE": Action.ROUTE_EDIT}

    @extend_schema(operation_id="route_overrides_delete", responses={204: None})
    def delete(self, request: Request, override_id: str) -> Response:
        route_services.delete_route_override(
            context=api_context(request), override_id=parse_id(override_id)
        )
        return Response(status=204)


def _shown(request: Request, route_id: str, status: int = 200) -> Response:
    with selectors.routes_scope(api_context(request)):
        route = selectors.get_route(parse_id(route_id))
        return Response(shapes.RouteSerializer(route).data, status)
