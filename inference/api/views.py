"""Jobs, models and deployments on the management API; all of them are read here."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from inference import selectors
from inference.api import serializers as shapes
from inference.models import JobState
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import own_tenant, parse_id
from tenants.permissions import Action

_STATES = {state.name.lower(): state for state in JobState}


class JobsView(PortalView):
    """The tenant's jobs."""

    actions = {"GET": Action.JOB_READ}

    @extend_schema(
        operation_id="jobs_list",
        parameters=[
            OpenApiParameter("state", enum=list(_STATES)),
            OpenApiParameter("api_key_id", description="Jobs of this key alone."),
            OpenApiParameter("request_id", description="The portal's id of the request."),
        ],
        responses=shapes.JobSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        found = selectors.jobs()
        query = request.query_params
        if "state" in query:
            if query["state"] not in _STATES:
                raise Invalid("'state' is no state of a job.", param="state")
            found = found.filter(state=_STATES[query["state"]])
        if "api_key_id" in query:
            found = found.filter(api_key_id=parse_id(query["api_key_id"], "api_key_id"))
        if "request_id" in query:
            found = found.filter(request_id=query["request_id"])
        return self.page(request, found, shapes.JobSerializer)


class JobView(PortalView):
    """One job with its timeline."""

    actions = {"GET": Action.JOB_READ}

    @extend_schema(operation_id="jobs_read", responses=shapes.JobDetailSerializer)
    def get(self, request: Request, job_id: str) -> Response:
        own_tenant(request)
        return Response(shapes.JobDetailSerializer(selectors.get_job(parse_id(job_id))).data)


class ModelsView(PortalView):
    """The models that can be called, and what they cost."""

    actions = {"GET": Action.MODEL_READ}

    @extend_schema(operation_id="models_list", responses=shapes.ModelSerializer(many=True))
    def get(self, request: Request) -> Response:
        return self.page(request, selectors.served_models(), shapes.ModelSerializer)


class DeploymentsView(PortalView):
    """What is served where; the platform's administrators see it."""

    actions = {"GET": Action.DEPLOYMENT_READ}

    @extend_schema(
        operation_id="deployments_list", responses=shapes.DeploymentSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        return self.page(request, selectors.deployments(), shapes.DeploymentSerializer)
