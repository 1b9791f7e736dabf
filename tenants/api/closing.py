"""Closing, export and certificate on the management API."""

from typing import Any

from django.http import HttpResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from portal.core.api import PortalView
from portal.core.downloads import Download
from portal.core.rest import api_context, parse_id
from tenants import services
from tenants.api.serializers import ReasonSerializer, TenantSerializer
from tenants.closing.certificate import exported
from tenants.closing.selectors import closing_progress
from tenants.models import ClosureStep, TenantClosure, TenantExport
from tenants.permissions import Action
from tenants.services.closing import MOST_GRACE_DAYS


class ClosingSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120, help_text="The tenant's name, typed again.")
    reason = serializers.CharField(max_length=200)
    grace_days = serializers.IntegerField(
        min_value=0,
        max_value=MOST_GRACE_DAYS,
        required=False,
        help_text="How long it can be reopened; else the installation's setting.",
    )


class ClosureStepSerializer(serializers.ModelSerializer[ClosureStep]):
    class Meta:
        model = ClosureStep
        fields = ["name", "erased", "began_at", "finished_at"]
        read_only_fields = fields


class ClosureSerializer(serializers.ModelSerializer[TenantClosure]):
    class Meta:
        model = TenantClosure
        fields = [
            "id",
            "state",
            "reason",
            "asked_by",
            "asked_at",
            "delete_after",
            "settled_at",
            "deletion_began_at",
            "ended_at",
        ]
        read_only_fields = fields
        extra_kwargs = {"state": {"help_text": "`closing` can be reopened, `deleting` can not."}}


class ProgressSerializer(serializers.Serializer[Any]):
    """A closing and what its deletion has erased so far."""

    closure = ClosureSerializer()
    steps = ClosureStepSerializer(many=True)
    steps_total = serializers.IntegerField()


class TenantExportSerializer(serializers.ModelSerializer[TenantExport]):
    percent = serializers.IntegerField(allow_null=True, help_text="How much of it is written.")

    class Meta:
        model = TenantExport
        fields = [
            "id",
            "state",
            "asked_by",
            "asked_at",
            "rows_done",
            "rows_total",
            "percent",
            "ready_at",
            "expires_at",
            "size",
            "sha256",
        ]
        read_only_fields = fields


class CloseTenantView(PortalView):
    """Begins to close a tenant."""

    actions = {"POST": Action.TENANT_CLOSE}

    @extend_schema(
        operation_id="tenants_close", request=ClosingSerializer, responses=ClosureSerializer
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        fields = self.valid(ClosingSerializer, request)
        closure = services.close_tenant(
            context=api_context(request), tenant_id=parse_id(tenant_id), **fields
        )
        return Response(ClosureSerializer(closure).data)


class ReopenTenantView(PortalView):
    """Takes a closing back before its deletion has begun."""

    actions = {"POST": Action.TENANT_CLOSE}

    @extend_schema(
        operation_id="tenants_reopen", request=ReasonSerializer, responses=TenantSerializer
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        fields = self.valid(ReasonSerializer, request)
        tenant = services.reopen_tenant(
            context=api_context(request), tenant_id=parse_id(tenant_id), **fields
        )
        return Response(TenantSerializer(tenant).data)


class ClosureView(PortalView):
    """How far the newest closing of a tenant is."""

    actions = {"GET": Action.TENANT_READ}

    @extend_schema(operation_id="tenants_closure", responses=ProgressSerializer)
    def get(self, request: Request, tenant_id: str) -> Response:
        progress = closing_progress(api_context(request), parse_id(tenant_id))
        return Response(ProgressSerializer(progress).data)


class TenantExportView(PortalView):
    """The newest export of a tenant; POST asks for another."""

    actions = {"GET": Action.TENANT_EXPORT, "POST": Action.TENANT_EXPORT}

    @extend_schema(operation_id="tenants_export_read", responses=TenantExportSerializer)
    def get(self, request: Request, tenant_id: str) -> Response:
        export = services.newest_export(context=api_context(request), tenant_id=parse_id(tenant_id))
        return Response(TenantExportSerializer(export).data)

    @extend_schema(
        operation_id="tenants_export", request=None, responses={202: TenantExportSerializer}
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        export = services.request_export(
            context=api_context(request), tenant_id=parse_id(tenant_id)
        )
        return Response(TenantExportSerializer(export).data, 202)


class ZipRenderer(BaseRenderer):
    """Lets a caller ask for a zip file; the view never renders with it."""

    media_type = "application/zip"
    format = "zip"


class TenantExportFileView(PortalView):
    """The zip file of the newest export that is ready."""

    actions = {"GET": Action.TENANT_EXPORT}
    renderer_classes = [JSONRenderer, ZipRenderer]

    @extend_schema(
        operation_id="tenants_export_file",
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
    )
    def get(self, request: Request, tenant_id: str) -> HttpResponseBase:
        export, file = services.open_export(
            context=api_context(request), tenant_id=parse_id(tenant_id)
        )
        return export_download(export, file)


def export_download(export: TenantExport, file: Any) -> Download:
    """The file of an export as it is sent."""
    name = f"tenant-{export.tenant_id}-{export.asked_at:%Y%m%d-%H%M%S}.zip"
    return Download(file, name=name, content_type="application/zip")


class CertificateView(PortalView):
    """The certificate of a closed tenant, as ``manage.py verify_certificate`` reads it."""

    actions = {"GET": Action.TENANT_READ}

    @extend_schema(operation_id="tenants_certificate", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, tenant_id: str) -> HttpResponse:
        certificate = services.find_certificate(
            context=api_context(request), tenant_id=parse_id(tenant_id)
        )
        return HttpResponse(
            exported(certificate),
            content_type="application/json",
            headers={
                "Content-Disposition": f'attachment; filename="certificate-{certificate.pk}.json"'
            },
        )
