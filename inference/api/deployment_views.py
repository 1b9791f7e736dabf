"""The catalogue and the workers on the management API: the platform's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from inference import services, worker_services
from inference.api import deployment_serializers as shapes
from inference.models import Model, ModelCheck, ModelVersion
from inference.verification import ask_for_check
from inference.worker_selectors import get_deployment, get_worker, workers
from inference.worker_services import WorkerOrder
from portal.core.api import PortalView
from portal.core.errors import NotFound
from portal.core.rest import api_context, parse_id
from portal.core.tenancy import platform_scope
from tenants.permissions import Action


@contextmanager
def _platform(request: Request) -> Iterator[None]:
    """The platform's scope, which alone counts every tenant's waiting jobs."""
    context = replace(api_context(request), tenant_id=None)
    with platform_scope(context, reason="deployments are looked at"):
        yield


class ModelView(PortalView):
    """One model of the catalogue, served or not."""

    actions = {"GET": Action.DEPLOYMENT_READ, "PATCH": Action.MODEL_EDIT}

    @extend_schema(operation_id="models_read", responses=shapes.CatalogueModelSerializer)
    def get(self, request: Request, model_id: str) -> Response:
        found = Model.objects.prefetch_related("versions__prices", "versions__model")
        model = found.filter(pk=parse_id(model_id)).first()
        if model is None:
            raise NotFound("There is no such model.")
        return Response(shapes.CatalogueModelSerializer(model).data)

    @extend_schema(
        operation_id="models_edit",
        request=shapes.ModelChangeSerializer,
        responses=shapes.CatalogueModelSerializer,
    )
    def patch(self, request: Request, model_id: str) -> Response:
        fields = self.valid(shapes.ModelChangeSerializer, request)
        services.edit_model(context=api_context(request), model_id=parse_id(model_id), **fields)
        return self.get(request, model_id)


class VersionsView(PortalView):
    """Versions of all models, with their prices."""

    actions = {"GET": Action.DEPLOYMENT_READ, "POST": Action.MODEL_EDIT}

    @extend_schema(
        operation_id="model_versions_list", responses=shapes.VersionSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        found = ModelVersion.objects.select_related("model").prefetch_related("prices")
        return self.page(request, found, shapes.VersionSerializer)

    @extend_schema(
        operation_id="model_versions_register",
        request=shapes.NewVersionSerializer,
        responses={201: shapes.VersionSerializer},
    )
    def post(self, request: Request) -> Response:
        fields = self.valid(shapes.NewVersionSerializer, request)
        name, label = fields.pop("model"), fields.pop("version")
        version = services.register_artefact(
            context=api_context(request), name=name, label=label, **fields
        )
        return Response(shapes.VersionSerializer(version).data, 201)


class VersionView(PortalView):
    """One version."""

    actions = {"GET": Action.DEPLOYMENT_READ}

    @extend_schema(operation_id="model_versions_read", responses=shapes.VersionSerializer)
    def get(self, request: Request, version_id: str) -> Response:
        return Response(shapes.VersionSerializer(_version(version_id)).data)


class FileCheckView(PortalView):
    """Whether a version's files are what was registered: asks an io worker to read them."""

    actions = {"GET": Action.DEPLOYMENT_READ, "POST": Action.MODEL_EDIT}

    @extend_schema(operation_id="model_versions_check", responses=shapes.FileCheckSerializer)
    def get(self, request: Request, version_id: str) -> Response:
        check = ModelCheck.objects.filter(pk=parse_id(version_id)).first()
        if check is None:
            raise NotFound("The files of this version were never verified here.")
        return Response(shapes.FileCheckSerializer(check).data)

    @extend_schema(
        operation_id="model_versions_ask_check",
        request=None,
        responses={202: shapes.FileCheckSerializer},
    )
    def post(self, request: Request, version_id: str) -> Response:
        check = ask_for_check(context=api_context(request), version_id=parse_id(version_id))
        return Response(shapes.FileCheckSerializer(check).data, 202)


class PricesView(PortalView):
    """What a version has cost, costs and will cost."""

    actions = {"GET": Action.DEPLOYMENT_READ, "POST": Action.MODEL_EDIT}

    @extend_schema(operation_id="prices_list", responses=shapes.PriceSerializer(many=True))
    def get(self, request: Request, version_id: str) -> Response:
        return self.page(request, _version(version_id).prices.all(), shapes.PriceSerializer)

    @extend_schema(
        operation_id="prices_set",
        request=shapes.NewPriceSerializer,
        responses={201: shapes.PriceSerializer},
    )
    def post(self, request: Request, version_id: str) -> Response:
        fields = self.valid(shapes.NewPriceSerializer, request)
        price = services.set_price(
            context=api_context(request), version_id=parse_id(version_id), **fields
        )
        return Response(shapes.PriceSerializer(price).data, 201)


class DeploymentView(PortalView):
    """One deployment, with its options and how busy it is."""

    actions = {
        "GET": Action.DEPLOYMENT_READ,
        "PATCH": Action.DEPLOYMENT_EDIT,
        "DELETE": Action.DEPLOYMENT_EDIT,
    }

    @extend_schema(operation_id="deployments_read", responses=shapes.DeploymentDetailSerializer)
    def get(self, request: Request, deployment_id: str) -> Response:
        return shown_deployment(request, deployment_id)

    @extend_schema(
        operation_id="deployments_edit",
        request=shapes.DeploymentChangeSerializer,
        responses=shapes.DeploymentDetailSerializer,
    )
    def patch(self, request: Request, deployment_id: str) -> Response:
        fields = self.valid(shapes.DeploymentChangeSerializer, request)
        services.edit_deployment(
            context=api_context(request), deployment_id=parse_id(deployment_id), **fields
        )
        return shown_deployment(request, deployment_id)

    @extend_schema(operation_id="deployments_delete", responses={204: None})
    def delete(self, request: Request, deployment_id: str) -> Response:
        services.delete_deployment(
            context=api_context(request), deployment_id=parse_id(deployment_id)
        )
        return Response(status=204)


class _SwitchView(PortalView):
    """Enables or disables a deployment."""

    actions = {"POST": Action.DEPLOYMENT_EDIT}

    def _set(self, request: Request, deployment_id: str, *, enabled: bool) -> Response:
        services.set_deployment_enabled(
            context=api_context(request), deployment_id=parse_id(deployment_id), enabled=enabled
        )
        return shown_deployment(request, deployment_id)


class EnableDeploymentView(_SwitchView):
    """Calls are admitted to the deployment from then on."""

    @extend_schema(
        operation_id="deployments_enable",
        request=None,
        responses=shapes.DeploymentDetailSerializer,
    )
    def post(self, request: Request, deployment_id: str) -> Response:
        return self._set(request, deployment_id, enabled=True)


class DisableDeploymentView(_SwitchView):
    """The deployment gets no new calls; jobs under way are finished."""

    @extend_schema(
        operation_id="deployments_disable",
        request=None,
        responses=shapes.DeploymentDetailSerializer,
    )
    def post(self, request: Request, deployment_id: str) -> Response:
        return self._set(request, deployment_id, enabled=False)


class WorkersView(PortalView):
    """The workers of a deployment, as their last beats told."""

    actions = {"GET": Action.DEPLOYMENT_READ}

    @extend_schema(operation_id="deployments_workers", responses=shapes.WorkerSerializer(many=True))
    def get(self, request: Request, deployment_id: str) -> Response:
        with _platform(request):
            deployment = get_deployment(parse_id(deployment_id))
            found = workers().filter(deployment=deployment)
            return self.page(request, found, shapes.WorkerSerializer)


class DeploymentOrdersView(PortalView):
    """Tells all workers of a deployment that are up; answers those that were told."""

    actions = {"POST": Action.DEPLOYMENT_EDIT}

    @extend_schema(
        operation_id="deployments_order",
        request=shapes.OrderSerializer,
        responses=shapes.ToldSerializer,
    )
    def post(self, request: Request, deployment_id: str) -> Response:
        told = worker_services.order_workers(
            context=api_context(request),
            deployment_id=parse_id(deployment_id),
            order=WorkerOrder(self.valid(shapes.OrderSerializer, request)["order"]),
        )
        with _platform(request):
            found = workers().filter(pk__in=[worker.pk for worker in told])
            return Response(shapes.ToldSerializer({"workers": found}).data)


class WorkerView(PortalView):
    """One worker."""

    actions = {"GET": Action.DEPLOYMENT_READ}

    @extend_schema(operation_id="workers_read", responses=shapes.WorkerSerializer)
    def get(self, request: Request, worker_id: str) -> Response:
        with _platform(request):
            return Response(shapes.WorkerSerializer(get_worker(parse_id(worker_id))).data)


class WorkerOrdersView(PortalView):
    """Tells one worker to drain, resume, unload or load."""

    actions = {"POST": Action.DEPLOYMENT_EDIT}

    @extend_schema(
        operation_id="workers_order",
        request=shapes.OrderSerializer,
        responses=shapes.WorkerSerializer,
    )
    def post(self, request: Request, worker_id: str) -> Response:
        order = WorkerOrder(self.valid(shapes.OrderSerializer, request)["order"])
        context, id_ = api_context(request), parse_id(worker_id)
        worker_services.order_worker(context=context, worker_id=id_, order=order)
        with _platform(request):
            return Response(shapes.WorkerSerializer(get_worker(id_)).data)


def _version(version_id: str) -> ModelVersion:
    found = ModelVersion.objects.select_related("model").prefetch_related("prices")
    version = found.filter(pk=parse_id(version_id)).first()
    if version is None:
        raise NotFound("There is no such model version.")
    return version


def shown_deployment(request: Request, deployment_id: str, status: int = 200) -> Response:
    """The answer that shows one deployment as it is now."""
    with _platform(request):
        found: Any = get_deployment(parse_id(deployment_id))
        return Response(shapes.DeploymentDetailSerializer(found).data, status)
