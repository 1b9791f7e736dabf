"""Connections to Dify on the management API."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api import connection_serializers as shapes
from knowledge.connections import selectors, services
from portal.core.api import PortalView
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action


class ConnectionsView(PortalView):
    """The tenant's connections to Dify."""

    actions = {"GET": Action.CONNECTION_READ, "POST": Action.CONNECTION_EDIT}

    @extend_schema(
        operation_id="connections_list", responses=shapes.ConnectionSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, selectors.connections(), shapes.ConnectionSerializer)

    @extend_schema(
        operation_id="connections_create",
        request=shapes.NewConnectionSerializer,
        responses={201: shapes.ConnectionSerializer},
    )
    def post(self, request: Request) -> Response:
        """Connects to a workspace of a Dify, once both keys are tried."""
        sent = self.valid(shapes.NewConnectionSerializer, request)
        made = services.create_connection(context=api_context(request), **sent)
        return Response(shapes.ConnectionSerializer(made).data, status=201)


class ConnectionView(PortalView):
    """One connection."""

    actions = {
        "GET": Action.CONNECTION_READ,
        "PATCH": Action.CONNECTION_EDIT,
        "DELETE": Action.CONNECTION_EDIT,
    }

    @extend_schema(operation_id="connections_read", responses=shapes.ConnectionSerializer)
    def get(self, request: Request, connection_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_connection(parse_id(connection_id))
        return Response(shapes.ConnectionSerializer(found).data)

    @extend_schema(
        operation_id="connections_edit",
        request=shapes.EditConnectionSerializer,
        responses=shapes.ConnectionSerializer,
    )
    def patch(self, request: Request, connection_id: str) -> Response:
        """Changes what is given; where it leads is tried first."""
        sent = self.valid(shapes.EditConnectionSerializer, request)
        changed = services.edit_connection(
            context=api_context(request), connection_id=parse_id(connection_id), **sent
        )
        return Response(shapes.ConnectionSerializer(changed).data)

    @extend_schema(
        operation_id="connections_delete",
        parameters=[
            OpenApiParameter(
                "forget",
                bool,
                description="Also where something is still to be deleted in Dify; it stays there.",
            )
        ],
        responses={204: None},
    )
    def delete(self, request: Request, connection_id: str) -> Response:
        """Forgets the connection and its keys; in Dify nothing is changed."""
        services.delete_connection(
            context=api_context(request),
            connection_id=parse_id(connection_id),
            forget=request.query_params.get("forget") == "true",
        )
        return Response(status=204)


class CheckConnectionView(PortalView):
    """Tries a connection now."""

    actions = {"POST": Action.CONNECTION_EDIT}

    @extend_schema(
        operation_id="connections_check", request=None, responses=shapes.ConnectionSerializer
    )
    def post(self, request: Request, connection_id: str) -> Response:
        checked = services.check_connection(
            context=api_context(request), connection_id=parse_id(connection_id)
        )
        return Response(shapes.ConnectionSerializer(checked).data)


class ShareConnectionView(PortalView):
    """Gives another tenant of the same organisation a connection to the same workspace."""

    actions = {"POST": Action.CONNECTION_SHARE}

    @extend_schema(
        operation_id="connections_share",
        request=shapes.ShareConnectionSerializer,
        responses={204: None},
    )
    def post(self, request: Request, connection_id: str) -> Response:
        sent = self.valid(shapes.ShareConnectionSerializer, request)
        services.share_connection(
            context=api_context(request), connection_id=parse_id(connection_id), **sent
        )
        return Response(status=204)


class LicenceView(PortalView):
    """Writes down that a licence for several workspaces is held."""

    actions = {"POST": Action.CONNECTION_SHARE}

    @extend_schema(
        operation_id="connections_confirm_licence",
        request=shapes.ConfirmLicenceSerializer,
        responses=shapes.ConnectionSerializer,
    )
    def post(self, request: Request, connection_id: str) -> Response:
        sent = self.valid(shapes.ConfirmLicenceSerializer, request)
        confirmed = services.confirm_licence(
            context=api_context(request), connection_id=parse_id(connection_id), **sent
        )
        return Response(shapes.ConnectionSerializer(confirmed).data)


class WorkspacesView(PortalView):
    """Makes a workspace in the connection's Dify; it needs a confirmed licence."""

    actions = {"POST": Action.CONNECTION_SHARE}

    @extend_schema(
        operation_id="connections_create_workspace",
        request=shapes.NewWorkspaceSerializer,
        responses={201: shapes.WorkspaceSerializer},
    )
    def post(self, request: Request, connection_id: str) -> Response:
        sent = self.valid(shapes.NewWorkspaceSerializer, request)
        made = services.create_workspace(
            context=api_context(request), connection_id=parse_id(connection_id), **sent
        )
        return Response(shapes.WorkspaceSerializer(made).data, status=201)
