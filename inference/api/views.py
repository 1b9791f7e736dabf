"""Models and deployments on the management API: the lists, and a new deployment."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from inference import selectors, services
from inference.api import serializers as shapes
from inference.api.deployment_serializers import (
    DeploymentDetailSerializer,
    NewDeploymentSerializer,
)
from inference.api.deployment_views import shown_deployment
from inference.quality_services import set_quality_gate
from portal.core.api import PortalView
from portal.core.rest import api_context, parse_id
from tenants.permissions import Action


class ModelsView(PortalView):
    """The models that can be called, and what they cost."""

    actions = {"GET": Action.MODEL_READ}

    @extend_schema(operation_id="models_list", responses=shapes.ModelSerializer(many=True))
    def get(self, request: Request) -> Response:
        return self.page(request, selectors.served_models(), shapes.ModelSerializer)


class ModelGateView(PortalView):
    """What a model's quantized versions must be worth to be deployed or enabled."""

    actions = {"PUT": Action.MODEL_EDIT}

    @extend_schema(
        operation_id="models_set_quality_gate",
        request=shapes.GateSerializer,
        responses=shapes.GateSerializer,
    )
    def put(self, request: Request, model_id: str) -> Response:
        fields = self.valid(shapes.GateSerializer, request)
        model = set_quality_gate(
            context=api_context(request), model_id=parse_id(model_id), **fields
        )
        return Response(shapes.GateSerializer(model).data)


class DeploymentsView(PortalView):
    """What is served where; the platform's administrators see it."""

    actions = {"GET": Action.DEPLOYMENT_READ, "POST": Action.DEPLOYMENT_EDIT}

    @extend_schema(
        operation_id="deployments_list", responses=shapes.DeploymentSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        return self.page(request, selectors.deployments(), shapes.DeploymentSerializer)

    @extend_schema(
        operation_id="deployments_create",
        request=NewDeploymentSerializer,
        responses={201: DeploymentDetailSerializer},
    )
    def post(self, request: Request) -> Response:
        fields = self.valid(NewDeploymentSerializer, request)
        made = services.create_deployment(context=api_context(request), **fields)
        return shown_deployment(request, str(made.pk), 201)
