"""Knowledge bases and their documents on the management API."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge import retrieval, selectors, services
from knowledge.api import serializers as shapes
from knowledge.filters import Condition
from knowledge.models import Document, DocumentState, Method
from knowledge.retrieval import Question
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import StrictJSONParser, api_context, own_tenant, parse_id
from tenants.permissions import Action

_STATES = {state.name.lower(): state for state in DocumentState}
_READ = Action.KNOWLEDGE_READ
_EDIT = Action.KNOWLEDGE_EDIT


class KnowledgeBasesView(PortalView):
    """The tenant's knowledge bases."""

    actions = {"GET": _READ, "POST": _EDIT}

    @extend_schema(
        operation_id="knowledge_bases_list", responses=shapes.KnowledgeBaseSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, selectors.knowledge_bases(), shapes.KnowledgeBaseSerializer)

    @extend_schema(
        operation_id="knowledge_bases_create",
        request=shapes.NewKnowledgeBaseSerializer,
        responses={201: shapes.KnowledgeBaseSerializer},
    )
    def post(self, request: Request) -> Response:
        sent = self.valid(shapes.NewKnowledgeBaseSerializer, request)
        made = services.create_knowledge_base(context=api_context(request), **sent)
        found = selectors.get_knowledge_base(made.pk)
        return Response(shapes.KnowledgeBaseSerializer(found).data, status=201)


class KnowledgeBaseView(PortalView):
    """One knowledge base."""

    actions = {"GET": _READ, "PATCH": _EDIT, "DELETE": _EDIT}

    @extend_schema(operation_id="knowledge_bases_read", responses=shapes.KnowledgeBaseSerializer)
    def get(self, request: Request, base_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_knowledge_base(parse_id(base_id))
        return Response(shapes.KnowledgeBaseSerializer(found).data)

    @extend_schema(
        operation_id="knowledge_bases_edit",
        request=shapes.EditKnowledgeBaseSerializer,
        responses=shapes.KnowledgeBaseSerializer,
    )
    def patch(self, request: Request, base_id: str) -> Response:
        sent = self.valid(shapes.EditKnowledgeBaseSerializer, request)
        edited = services.edit_knowledge_base(
            context=api_context(request), knowledge_base_id=parse_id(base_id), **sent
        )
        found = selectors.get_knowledge_base(edited.pk)
        return Response(shapes.KnowledgeBaseSerializer(found).data)

    @extend_schema(operation_id="knowledge_bases_delete", responses={204: None})
    def delete(self, request: Request, base_id: str) -> Response:
        """Deletes it with its documents."""
        services.delete_knowledge_base(
            context=api_context(request), knowledge_base_id=parse_id(base_id)
        )
        return Response(status=204)


class RetrieveView(PortalView):
    """The passages that answer a question."""

    actions = {"POST": Action.KNOWLEDGE_RETRIEVE}

    @extend_schema(
        operation_id="knowledge_bases_retrieve",
        request=shapes.RetrieveSerializer,
        responses=shapes.FoundSerializer,
    )
    def post(self, request: Request, base_id: str) -> Response:
        sent = self.valid(shapes.RetrieveSerializer, request)
        filters = sent.pop("metadata_condition", None)
        found = retrieval.retrieve(
            context=api_context(request),
            knowledge_base_id=parse_id(base_id),
            question=Question(
                **_as_method(sent),
                conditions=conditions_of(filters),
                any_of=filters is not None and filters["logical_operator"] == "or",
            ),
        )
        return Response(shapes.FoundSerializer(found).data)


def _as_method(sent: dict[str, Any]) -> dict[str, Any]:
    return {**sent, "method": Method(sent["method"])} if "method" in sent else sent


def conditions_of(filters: dict[str, Any] | None) -> list[Condition]:
    """What ``ConditionsSerializer`` read, as retrieval takes it."""
    return [
        Condition(one["name"], one["comparison_operator"], one["value"])
        for one in (filters or {}).get("conditions", ())
    ]


class DocumentsView(PortalView):
    """The documents of a knowledge base."""

    actions = {"GET": _READ, "POST": _EDIT}

    @extend_schema(
        operation_id="knowledge_documents_list",
        parameters=[OpenApiParameter("state", enum=list(_STATES))],
        responses=shapes.DocumentSerializer(many=True),
    )
    def get(self, request: Request, base_id: str) -> Response:
        own_tenant(request)
        base = selectors.get_knowledge_base(parse_id(base_id))
        found = selectors.documents().filter(knowledge_base_id=base.pk)
        state = request.query_params.get("state")
        if state is not None:
            if state not in _STATES:
                raise Invalid("'state' is no state of a document.", param="state")
            found = found.filter(state=_STATES[state])
        return self.page(request, found, shapes.DocumentSerializer)

    @extend_schema(
        operation_id="knowledge_documents_add_text",
        request=shapes.NewTextSerializer,
        responses={201: shapes.DocumentSerializer},
    )
    def post(self, request: Request, base_id: str) -> Response:
        """Adds a text, of 1 MB at most; a longer one is sent as a file."""
        sent = self.valid(shapes.NewTextSerializer, request)
        added = services.add_text(
            context=api_context(request), knowledge_base_id=parse_id(base_id), **sent
        )
        return Response(_document(added).data, status=201)


class FilesView(PortalView):
    """Files of a knowledge base."""

    actions = {"POST": _EDIT}
    parser_classes = [MultiPartParser, StrictJSONParser]

    @extend_schema(
        operation_id="knowledge_documents_add_file",
        request={"multipart/form-data": shapes.NewFileSerializer},
        responses={201: shapes.DocumentSerializer},
    )
    def post(self, request: Request, base_id: str) -> Response:
        """Adds a file as a document, or as a new version of the one of its name."""
        own_tenant(request)
        base = selectors.get_knowledge_base(parse_id(base_id))
        sent = self.valid(shapes.NewFileSerializer, request)
        added = services.add_file(
            context=api_context(request),
            knowledge_base_id=base.pk,
            name=sent["file"].name,
            content=sent["file"].read(),
            metadata=sent.get("metadata"),
        )
        return Response(_document(added).data, status=201)


class DocumentView(PortalView):
    """One document."""

    actions = {"GET": _READ, "PATCH": _EDIT, "DELETE": _EDIT}

    @extend_schema(operation_id="knowledge_documents_read", responses=shapes.DocumentSerializer)
    def get(self, request: Request, document_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_document(parse_id(document_id))
        return Response(shapes.DocumentSerializer(found).data)

    @extend_schema(
        operation_id="knowledge_documents_edit",
        request=shapes.EditDocumentSerializer,
        responses=shapes.DocumentSerializer,
    )
    def patch(self, request: Request, document_id: str) -> Response:
        sent = self.valid(shapes.EditDocumentSerializer, request)
        edited = services.edit_document(
            context=api_context(request), document_id=parse_id(document_id), **sent
        )
        return Response(_document(edited).data)

    @extend_schema(operation_id="knowledge_documents_delete", responses={204: None})
    def delete(self, request: Request, document_id: str) -> Response:
        """Deletes it with its versions."""
        services.delete_document(context=api_context(request), document_id=parse_id(document_id))
        return Response(status=204)


def _document(changed: Document) -> shapes.DocumentSerializer:
    return shapes.DocumentSerializer(selectors.get_document(changed.pk))


class IndexView(PortalView):
    """Reads and indexes the newest version once more."""

    actions = {"POST": _EDIT}

    @extend_schema(
        operation_id="knowledge_documents_index",
        request=None,
        responses=shapes.DocumentSerializer,
    )
    def post(self, request: Request, document_id: str) -> Response:
        begun = services.index_again(
            context=api_context(request), document_id=parse_id(document_id)
        )
        return Response(_document(begun).data)


class VersionsView(PortalView):
    """A document's versions, newest first; the last twenty are kept."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="knowledge_versions_list",
        responses=shapes.DocumentVersionSerializer(many=True),
    )
    def get(self, request: Request, document_id: str) -> Response:
        own_tenant(request)
        document = selectors.get_document(parse_id(document_id))
        return self.page(request, selectors.versions(document), shapes.DocumentVersionSerializer)


class TextView(PortalView):
    """A document's text."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="knowledge_documents_text",
        parameters=[OpenApiParameter("version", int, description="The newest if left out.")],
        responses=shapes.DocumentTextSerializer,
    )
    def get(self, request: Request, document_id: str) -> Response:
        own_tenant(request)
        document = selectors.get_document(parse_id(document_id))
        found = selectors.get_version(document, number_in(request, "version", document.latest))
        return Response(shapes.DocumentTextSerializer(found).data)


class DiffView(PortalView):
    """What a version says and the one before does not."""

    actions = {"GET": _READ}

    @extend_schema(
        operation_id="knowledge_versions_diff",
        parameters=[
            OpenApiParameter("to", int, description="Number of a version; else the newest."),
            OpenApiParameter("from", int, description="Number of a version; else the one before."),
        ],
        responses=shapes.DiffSerializer,
    )
    def get(self, request: Request, document_id: str) -> Response:
        own_tenant(request)
        document = selectors.get_document(parse_id(document_id))
        after = number_in(request, "to", document.latest)
        before = number_in(request, "from", max(1, after - 1))
        lines = list(selectors.diff(document, before, after))
        return Response(shapes.DiffSerializer({"lines": lines}).data)


def number_in(request: Request, name: str, default: int) -> int:
    """The number of a version in the query.

    Raises:
        Invalid: it is none.
    """
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise Invalid(f"'{name}' must be the number of a version.", param=name)
    return int(text)
