"""Models and deployments on the management API; all of them are read here."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from inference import selectors
from inference.api import serializers as shapes
from portal.core.api import PortalView
from tenants.permissions import Action


class ModelsView(PortalView):
    """The models that can be called, and what they cost."""

    actions = {"GET": Action.MODEL_READ}

    @extend_schema(operation_id="models_list", responses=shapes.ModelSerializer(many=True))
    def get(self, request: Request) -> Response:
        return self.page(request, selectors.served_models(), shapes.ModelSerializer)


class ModelVersionsView(PortalView):
    """The artefacts that can be deployed; the platform's administrators see them."""

    actions = {"GET": Action.DEPLOYMENT_READ}

    @extend_schema(
        operation_id="model_versions_list", responses=shapes.ModelVersionSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        return self.page(request, selectors.model_versions(), shapes.ModelVersionSerializer)


class DeploymentsView(PortalView):
    """What is served where; the platform's administrators see it."""

    actions = {"GET": Action.DEPLOYMENT_READ}

    @extend_schema(
        operation_id="deployments_list", responses=shapes.DeploymentSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        return self.page(request, selectors.deployments(), shapes.DeploymentSerializer)
