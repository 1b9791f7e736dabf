"""Default quotas on the management API."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.core.api import PortalView
from portal.core.rest import api_context, own_tenant, parse_id
from tenants import selectors, services
from tenants.api.serializers import LimitsSerializer
from tenants.models import LIMITS, QuotaDefault
from tenants.models.quotas import AppliesTo
from tenants.permissions import Action


class QuotaDefaultSerializer(serializers.ModelSerializer[QuotaDefault]):
    """What each key, or each user, has by itself. A limit that is null is none."""

    applies_to = serializers.ChoiceField(AppliesTo.values)

    class Meta:
        model = QuotaDefault
        fields = ["id", "applies_to", "model_id", *LIMITS, "created_at"]
        read_only_fields = fields


class QuotaDefaultChangeSerializer(LimitsSerializer):
    """Limits of a default. One that is absent stays as it is; null takes it away."""

    applies_to = serializers.ChoiceField(
        AppliesTo.values, help_text="`user` means service accounts, too."
    )
    model_id = serializers.UUIDField(required=False, allow_null=True)


class QuotaDefaultsView(PortalView):
    """Limits that every key, or every user and service account, of the tenant has by itself."""

    actions = {"GET": Action.QUOTA_READ, "PUT": Action.QUOTA_EDIT}

    @extend_schema(operation_id="quota_defaults_list", responses=QuotaDefaultSerializer(many=True))
    def get(self, request: Request) -> Response:
        found = QuotaDefault.objects.filter(tenant_id=own_tenant(request))
        return self.page(request, found, QuotaDefaultSerializer)

    @extend_schema(
        operation_id="quota_defaults_set",
        request=QuotaDefaultChangeSerializer,
        responses=QuotaDefaultSerializer,
    )
    def put(self, request: Request) -> Response:
        fields = self.valid(QuotaDefaultChangeSerializer, request)
        default = services.set_quota_default(context=api_context(request), **fields)
        return Response(QuotaDefaultSerializer(default).data)


class QuotaDefaultView(PortalView):
    """One default."""

    actions = {
        "GET": Action.QUOTA_READ,
        "PATCH": Action.QUOTA_EDIT,
        "DELETE": Action.QUOTA_EDIT,
    }

    @extend_schema(operation_id="quota_defaults_read", responses=QuotaDefaultSerializer)
    def get(self, request: Request, default_id: str) -> Response:
        return Response(QuotaDefaultSerializer(_default(request, default_id)).data)

    @extend_schema(
        operation_id="quota_defaults_edit",
        request=LimitsSerializer,
        responses=QuotaDefaultSerializer,
    )
    def patch(self, request: Request, default_id: str) -> Response:
        limits = self.valid(LimitsSerializer, request)
        default = _default(request, default_id)
        changed = services.set_quota_default(
            context=api_context(request),
            applies_to=default.applies_to,
            model_id=default.model_id,
            **limits,
        )
        return Response(QuotaDefaultSerializer(changed).data)

    @extend_schema(operation_id="quota_defaults_delete", responses={204: None})
    def delete(self, request: Request, default_id: str) -> Response:
        own_tenant(request)
        services.delete_quota_default(
            context=api_context(request), quota_default_id=parse_id(default_id)
        )
        return Response(status=204)


def _default(request: Request, default_id: str) -> QuotaDefault:
    found = QuotaDefault.objects.filter(tenant_id=own_tenant(request), pk=parse_id(default_id))
    return selectors.one(found, "There is no such default quota.")
