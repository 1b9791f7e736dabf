"""The base of every view of the management API.

It knows no app: a view names its actions by their text, and the permission class, which an app
above gives, asks the permission table.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer

from portal.core.errors import PortalError
from portal.core.rest import NewestFirstPagination

M = TypeVar("M", bound=Model)


class PortalView(GenericAPIView[Any]):
    """A view that declares its permissions and calls one service or selector a method.

    ``actions`` names, for each method, the action it needs, or several of which one is enough;
    a method that declares none is denied.
    """

    actions: ClassVar[Mapping[str, str | Sequence[str]]] = {}
    filter_backends = []

    def valid(self, serializer: type[Serializer[Any]], request: Request) -> dict[str, Any]:
        """The body's fields as the serializer reads them.

        Raises:
            rest_framework.exceptions.ValidationError: naming every field that is wrong.
        """
        read = serializer(data=request.data)
        read.is_valid(raise_exception=True)
        return dict(read.validated_data)

    def refuse(self, refusal: PortalError) -> Response:
        """The answer of a refusal that a service has recorded: what it wrote stays.

        A refusal that is raised undoes everything, its record too.
        """
        response = self.handle_exception(refusal)
        response.recorded = True  # type: ignore[attr-defined]
        return response

    def page(
        self,
        request: Request,
        queryset: QuerySet[M],
        serializer: type[BaseSerializer[Any]],
        prepare: Callable[[list[M]], Sequence[Any]] | None = None,
    ) -> Response:
        """One page of rows; ``prepare`` makes of them what the serializer shows."""
        paginator = NewestFirstPagination()
        rows = paginator.paginate_queryset(queryset, request, self)
        shown = rows if prepare is None else prepare(rows)
        return paginator.get_paginated_response(serializer(shown, many=True).data)
