"""Sources of documents on the management API."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api import source_serializers as shapes
from knowledge.selectors import get_knowledge_base
from knowledge.sources import selectors, services
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action

_READ = Action.KNOWLEDGE_READ
_EDIT = Action.KNOWLEDGE_EDIT


class SourcesView(PortalView):
    """The sources of a knowledge base."""

    actions = {"GET": _READ, "POST": _EDIT}

    @extend_schema(
        operation_id="knowledge_sources_list", responses=shapes.DocumentSourceSerializer(many=True)
    )
    def get(self, request: Request, base_id: str) -> Response:
        own_tenant(request)
        base = get_knowledge_base(parse_id(base_id))
        found = selectors.sources().filter(knowledge_base_id=base.pk)
        return self.page(request, found, shapes.DocumentSourceSerializer)

    @extend_schema(
        operation_id="knowledge_sources_create",
        request=shapes.NewDocumentSourceSerializer,
        responses={201: shapes.DocumentSourceSerializer},
    )
    def post(self, request: Request, base_id: str) -> Response:
        """Adds a source, once it has been read; its first run begins at once."""
        sent = self.valid(shapes.NewDocumentSourceSerializer, request)
        made = services.create_source(
            context=api_context(request), knowledge_base_id=parse_id(base_id), **sent
        )
        found = selectors.get_source(made.pk)
        return Response(shapes.DocumentSourceSerializer(found).data, status=201)


class SourceView(PortalView):
    """One source."""

    actions = {"GET": _READ, "PATCH": _EDIT, "DELETE": _EDIT}

    @extend_schema(operation_id="knowledge_sources_read", responses=shapes.DocumentSourceSerializer)
    def get(self, request: Request, source_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_source(parse_id(source_id))
        return Response(shapes.DocumentSourceSerializer(found).data)

    @extend_schema(
        operation_id="knowledge_sources_edit",
        request=shapes.EditDocumentSourceSerializer,
        responses=shapes.DocumentSourceSerializer,
    )
    def patch(self, request: Request, source_id: str) -> Response:
        """Changes what is given; other settings are tried first."""
        sent = self.valid(shapes.EditDocumentSourceSerializer, request)
        edited = services.edit_source(
            context=api_context(request), source_id=parse_id(source_id), **sent
        )
        found = selectors.get_source(edited.pk)
        return Response(shapes.DocumentSourceSerializer(found).data)

    @extend_schema(
        operation_id="knowledge_sources_delete",
        parameters=[
            OpenApiParameter(
                "documents",
                enum=["keep", "delete"],
                default="keep",
                description="What becomes of the documents that came out of it.",
            )
        ],
        responses={204: None},
    )
    def delete(self, request: Request, source_id: str) -> Response:
        """Forgets the source."""
        documents = request.query_params.get("documents", "keep")
        if documents not in ("keep", "delete"):
            raise Invalid("'documents' must be keep or delete.", param="documents")
        services.delete_source(
            context=api_context(request),
            source_id=parse_id(source_id),
            keep_documents=documents == "keep",
        )
        return Response(status=204)


class TestSourceView(PortalView):
    """Reads the first entries of a source and keeps nothing."""

    actions = {"POST": _EDIT}

    @extend_schema(
        operation_id="knowledge_sources_test", request=None, responses=shapes.TestedSerializer
    )
    def post(self, request: Request, source_id: str) -> Response:
        seen = services.try_source(context=api_context(request), source_id=parse_id(source_id))
        return Response(shapes.TestedSerializer({"entries": seen}).data)


class RunSourceView(PortalView):
    """Has a source read now."""

    actions = {"POST": _EDIT}

    @extend_schema(
        operation_id="knowledge_sources_run",
        request=shapes.RunSourceSerializer,
        responses=shapes.DocumentSourceSerializer,
    )
    def post(self, request: Request, source_id: str) -> Response:
        sent = self.valid(shapes.RunSourceSerializer, request)
        started = services.start_run(
            context=api_context(request), source_id=parse_id(source_id), **sent
        )
        found = selectors.get_source(started.pk)
        return Response(shapes.DocumentSourceSerializer(found).data)


class SourceRunsView(PortalView):
    """A source's runs, newest first; the last hundred are kept."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="knowledge_source_runs_list", responses=shapes.SourceRunSerializer(many=True)
    )
    def get(self, request: Request, source_id: str) -> Response:
        own_tenant(request)
        source = selectors.get_source(parse_id(source_id))
        return self.page(request, selectors.runs(source), shapes.SourceRunSerializer)


class SourceRefusalsView(PortalView):
    """What of a source is no document now, with the reason why."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="knowledge_source_refusals_list",
        responses=shapes.RefusalSerializer(many=True),
    )
    def get(self, request: Request, source_id: str) -> Response:
        own_tenant(request)
        source = selectors.get_source(parse_id(source_id))
        return self.page(request, selectors.refusals(source), shapes.RefusalSerializer)
