"""What the management API reads and how it pages.

The framework's settings name these, so this module imports no views: they read those settings.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest
from rest_framework.exceptions import ParseError
from rest_framework.pagination import BasePagination
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response

from portal.core.actors import Context
from portal.core.errors import Forbidden, Invalid, PortalError

if TYPE_CHECKING:
    from rest_framework.views import APIView

MAX_BODY_BYTES: Final = 1024 * 1024
SIGNED_IN: Final = ""
"""Declared in the place of an action: every caller who is known may."""


class TooLarge(PortalError):
    """The body is longer than this API reads."""

    code = "body_too_large"
    status = 413


def api_context(request: Request | HttpRequest) -> Context:
    """Who calls, as the middleware found out."""
    http = request._request if isinstance(request, Request) else request
    context: Context = http.portal  # type: ignore[attr-defined]
    return context


def own_tenant(request: Request) -> UUID:
    """The tenant that the caller acts in.

    Raises:
        Forbidden: none was chosen.
    """
    tenant_id = api_context(request).tenant_id
    if tenant_id is None:
        raise Forbidden("Choose a tenant first.", code="no_tenant")
    return tenant_id


def parse_id(text: str, param: str = "id") -> UUID:
    """An id in a path, a query or a body.

    Raises:
        Invalid: it is no UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise Invalid(f"'{param}' is not an id.", param=param) from None


class StrictJSONParser(JSONParser):
    """JSON that every part behind it can take: bounded, not too deep, storable as UTF-8."""

    def parse(
        self,
        stream: Any,
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"The body is longer than {MAX_BODY_BYTES} bytes.")
        try:
            data = json.loads(body.decode(), parse_constant=_refuse_constant)
            # A lone surrogate is a JSON string, but neither UTF-8 nor a PostgreSQL text.
            json.dumps(data, ensure_ascii=False).encode()
        except RecursionError:
            raise ParseError("The body is nested too deeply.") from None
        except ValueError:
            raise ParseError("The body is not JSON.") from None
        return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class NewestFirstPagination(BasePagination):
    """Pages of rows whose ids are UUIDv7, newest first.

    ``limit`` rows at a time; ``next`` in the answer is the path of the following page, with the
    same filters, and null on the last one. Rows that arrive meanwhile move nothing.
    """

    default_limit: Final = 50
    most: Final = 200

    def paginate_queryset(
        self, queryset: Any, request: Request, view: "APIView | None" = None
    ) -> list[Any]:
        limit = self.limit(request)
        before = request.query_params.get("before")
        found = queryset.order_by("-pk")
        if before is not None:
            found = found.filter(pk__lt=parse_id(before, "before"))
        rows = list(found[: limit + 1])
        following = str(rows[limit - 1].pk) if len(rows) > limit else None
        self.next = self.next_path(request, following)
        return rows[:limit]

    def limit(self, request: Request) -> int:
        """How many rows are asked for.

        Raises:
            Invalid: no number from 1 to ``most``.
        """
        text = request.query_params.get("limit", str(self.default_limit))
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= self.most):
            raise Invalid(f"'limit' must be from 1 to {self.most}.", param="limit")
        return int(text)

    def next_path(self, request: Request, following: str | None) -> str | None:
        """The path of the page that begins after ``following``."""
        if following is None:
            return None
        query = {**request.query_params.dict(), "before": following}
        return f"{request.path}?{urlencode(query)}"

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"items": data, "next": self.next})

    def get_paginated_response_schema(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": schema,
                "next": {"type": "string", "nullable": True, "description": "The next page."},
            },
        }

    def get_schema_operation_parameters(self, view: "APIView") -> list[dict[str, Any]]:
        return [
            {
                "name": "limit",
                "in": "query",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": self.most,
                    "default": self.default_limit,
                },
            },
            {
                "name": "before",
                "in": "query",
                "description": "Rows older than this; taken from `next`.",
                "schema": {"type": "string"},
            },
        ]
