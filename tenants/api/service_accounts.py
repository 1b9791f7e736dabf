"""Service accounts on the management API."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.core.api import PortalView
from portal.core.rest import api_context, own_tenant, parse_id
from tenants import querysets, selectors, services
from tenants.api.serializers import ReasonSerializer
from tenants.models import ServiceAccount
from tenants.permissions import Action


class ServiceAccountSerializer(serializers.ModelSerializer[ServiceAccount]):
    id = serializers.UUIDField(
        source="pk", help_text="Also the `user_id` of its keys, jobs, quotas and usage."
    )
    state = serializers.ChoiceField(["active", "disabled", "retired"])
    responsible_id = serializers.UUIDField()
    responsible = serializers.CharField(source="responsible.email")
    responsible_is_here = serializers.BooleanField(
        help_text="Whether that person is still an active member."
    )
    live_keys = serializers.IntegerField(help_text="How many of its keys work.")

    class Meta:
        model = ServiceAccount
        fields = [
            "id",
            "name",
            "description",
            "state",
            "responsible_id",
            "responsible",
            "responsible_is_here",
            "live_keys",
            "created_at",
            "retired_at",
        ]
        read_only_fields = fields


class NewServiceAccountSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    description = serializers.CharField(max_length=400, default="", allow_blank=True)
    responsible_id = serializers.UUIDField(
        required=False, help_text="A member of the tenant; absent: the caller."
    )


class ServiceAccountChangeSerializer(serializers.Serializer[Any]):
    """What is absent stays as it is."""

    name = serializers.CharField(max_length=80, required=False)
    description = serializers.CharField(max_length=400, required=False, allow_blank=True)
    responsible_id = serializers.UUIDField(required=False)


class ServiceAccountsView(PortalView):
    """The tenant's service accounts, retired ones included. Their keys are made at `keys`."""

    actions = {"GET": Action.SERVICE_ACCOUNT_READ, "POST": Action.SERVICE_ACCOUNT_MANAGE}

    @extend_schema(
        operation_id="service_accounts_list", responses=ServiceAccountSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, querysets.service_accounts(), ServiceAccountSerializer)

    @extend_schema(
        operation_id="service_accounts_create",
        request=NewServiceAccountSerializer,
        responses={201: ServiceAccountSerializer},
    )
    def post(self, request: Request) -> Response:
        fields = self.valid(NewServiceAccountSerializer, request)
        made = services.create_service_account(context=api_context(request), **fields)
        return _shown(made, 201)


class ServiceAccountView(PortalView):
    """One service account."""

    actions = {
        "GET": Action.SERVICE_ACCOUNT_READ,
        "PATCH": Action.SERVICE_ACCOUNT_MANAGE,
        "DELETE": Action.SERVICE_ACCOUNT_MANAGE,
    }

    @extend_schema(operation_id="service_accounts_read", responses=ServiceAccountSerializer)
    def get(self, request: Request, account_id: str) -> Response:
        own_tenant(request)
        found = querysets.service_accounts().filter(pk=parse_id(account_id))
        account = selectors.one(found, "There is no such service account.")
        return Response(ServiceAccountSerializer(account).data)

    @extend_schema(
        operation_id="service_accounts_edit",
        request=ServiceAccountChangeSerializer,
        responses=ServiceAccountSerializer,
    )
    def patch(self, request: Request, account_id: str) -> Response:
        fields = self.valid(ServiceAccountChangeSerializer, request)
        edited = services.edit_service_account(
            context=api_context(request), service_account_id=parse_id(account_id), **fields
        )
        return _shown(edited)

    @extend_schema(
        operation_id="service_accounts_retire",
        description="Retires it: its keys are revoked, and it stays to be read.",
        responses={204: None},
    )
    def delete(self, request: Request, account_id: str) -> Response:
        services.retire_service_account(
            context=api_context(request), service_account_id=parse_id(account_id)
        )
        return Response(status=204)


class DisableServiceAccountView(PortalView):
    """Stops a service account's keys."""

    actions = {"POST": Action.SERVICE_ACCOUNT_MANAGE}

    @extend_schema(
        operation_id="service_accounts_disable",
        request=ReasonSerializer,
        responses=ServiceAccountSerializer,
    )
    def post(self, request: Request, account_id: str) -> Response:
        fields = self.valid(ReasonSerializer, request)
        changed = services.disable_service_account(
            context=api_context(request), service_account_id=parse_id(account_id), **fields
        )
        return _shown(changed)


class EnableServiceAccountView(PortalView):
    """Lets a service account's keys work again."""

    actions = {"POST": Action.SERVICE_ACCOUNT_MANAGE}

    @extend_schema(
        operation_id="service_accounts_enable",
        request=ReasonSerializer,
        responses=ServiceAccountSerializer,
    )
    def post(self, request: Request, account_id: str) -> Response:
        fields = self.valid(ReasonSerializer, request)
        changed = services.enable_service_account(
            context=api_context(request), service_account_id=parse_id(account_id), **fields
        )
        return _shown(changed)


def _shown(account: ServiceAccount, status: int = 200) -> Response:
    """The account as a read shows it, with what only the database can count."""
    found = selectors.one(
        querysets.service_accounts().filter(pk=account.pk), "There is no such service account."
    )
    return Response(ServiceAccountSerializer(found).data, status)
