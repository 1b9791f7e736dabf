"""Usage on the management API: sums as JSON, page by page, or all of them as CSV."""

from dataclasses import asdict
from typing import Any

from django.http import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from portal.core.api import PortalView
from portal.core.downloads import Download
from portal.core.errors import Invalid
from portal.core.rest import NewestFirstPagination, api_context
from tenants import services
from tenants.permissions import Action
from tenants.usage import (
    Group,
    UsageQuery,
    UsageReader,
    month_to_date,
    usage_frame,
    usage_scope,
)

_GROUPS = ", ".join(group.value for group in Group)


class CSVRenderer(JSONRenderer):
    """Lets a caller ask for CSV; what is refused is still a problem in JSON."""

    media_type = "text/csv"
    format = "csv"


class UsageQuerySerializer(serializers.Serializer[Any]):
    group_by = serializers.CharField(
        default=Group.DAY.value,
        allow_blank=True,
        max_length=80,
        help_text=f"Any of {_GROUPS}, by commas; empty for one sum a currency.",
    )

    limit = serializers.IntegerField(
        default=NewestFirstPagination.default_limit,
        min_value=1,
        max_value=NewestFirstPagination.most,
    )
    before = serializers.CharField(
        required=False, max_length=1000, help_text="Rows after this; taken from `next`."
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        zone = "in the tenant's time zone; UTC across tenants"
        return {
            "from": serializers.DateField(
                required=False, help_text=f"First day, {zone}. Else the first of this month."
            ),
            "to": serializers.DateField(
                required=False, help_text=f"Last day, itself included, {zone}. Else today."
            ),
            **super().get_fields(),
        }


class UsageRowSerializer(serializers.Serializer[Any]):
    """Usage of one group. What it is not split by, and what is not known any more, is null."""

    tenant_id = serializers.UUIDField(allow_null=True, help_text="Across tenants alone.")
    tenant = serializers.CharField(allow_null=True)
    day = serializers.DateField(allow_null=True)
    user_id = serializers.UUIDField(allow_null=True)
    user = serializers.CharField(allow_null=True)
    api_key_id = serializers.UUIDField(allow_null=True)
    api_key = serializers.CharField(allow_null=True)
    model_id = serializers.UUIDField(allow_null=True)
    sku = serializers.CharField(allow_null=True, help_text="The model and its version.")
    currency = serializers.CharField()
    requests = serializers.IntegerField(help_text="Requests that were charged.")
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    cost = serializers.IntegerField(help_text="Nano-units of the currency.")


class UsageSerializer(serializers.Serializer[Any]):
    """One page of usage and what the figures are worth."""

    complete_until = serializers.DateTimeField(
        allow_null=True, help_text="Every charge recorded before this is in the figures."
    )
    time_zone = serializers.CharField(help_text="Where the days begin.")
    items = UsageRowSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="The next page.")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {"from": serializers.DateField(), "to": serializers.DateField()} | (
            super().get_fields()
        )


class UsageView(PortalView):
    """Usage of the tenant; of every tenant for an administrator of the platform who is in none."""

    actions = {"GET": Action.USAGE_READ}
    renderer_classes = [JSONRenderer, CSVRenderer]

    @extend_schema(
        operation_id="usage_list",
        parameters=[UsageQuerySerializer],
        responses={(200, "application/json"): UsageSerializer, (200, "text/csv"): str},
    )
    def get(self, request: Request) -> HttpResponseBase:
        context = api_context(request)
        with usage_scope(context):
            frame = usage_frame(context)
            wanted = UsageQuerySerializer(data=request.query_params)
            wanted.is_valid(raise_exception=True)
            fields = wanted.validated_data
            query = _query(fields, frame.time_zone)
            if request.accepted_renderer.format == CSVRenderer.format:
                file = services.export_usage(context=context, query=query)
                name = f"usage-{query.first}-{query.last}.csv"
                return Download(file, name=name, content_type="text/csv; charset=utf-8")
            found = UsageReader(context, query, frame.time_zone).page(
                limit=fields["limit"], before=fields.get("before")
            )
        shown = {
            "from": query.first,
            "to": query.last,
            "complete_until": frame.complete_until,
            "time_zone": frame.time_zone,
            "items": [asdict(row) for row in found.rows],
            "next": NewestFirstPagination().next_path(request, found.following),
        }
        return Response(UsageSerializer(shown).data)


def _query(fields: dict[str, Any], zone: str) -> UsageQuery:
    first, today = month_to_date(zone, timezone.now())
    last = fields.get("to", today)
    # A period that ends before this month begins with its own month.
    first = fields.get("from", min(first, last.replace(day=1)))
    return UsageQuery(first, last, _groups(fields["group_by"]))


def _groups(text: str) -> tuple[Group, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        return tuple(Group(name) for name in names)
    except ValueError:
        raise Invalid(f"'group_by' takes any of {_GROUPS}, by commas.", param="group_by") from None
