"""Webhooks on the management API: deliveries, trials, and the secret that signs them."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from inference.api import webhook_serializers as shapes
from inference.models import WebhookState
from inference.webhooks import selectors, services
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action

_STATES = {state.name.lower(): state for state in WebhookState}


class DeliveriesView(PortalView):
    """The callbacks of the tenant's jobs, newest first."""

    actions = {"GET": Action.WEBHOOK_READ}

    @extend_schema(
        operation_id="webhook_deliveries_list",
        parameters=[
            OpenApiParameter("job_id", description="The callback of this job."),
            OpenApiParameter("state", enum=list(_STATES)),
        ],
        responses=shapes.WebhookDeliverySerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        found = selectors.deliveries()
        query = request.query_params
        if "job_id" in query:
            found = found.filter(job_id=parse_id(query["job_id"], "job_id"))
        if "state" in query:
            if query["state"] not in _STATES:
                raise Invalid("'state' is no state of a webhook delivery.", param="state")
            found = found.filter(state=_STATES[query["state"]])
        return self.page(request, found, shapes.WebhookDeliverySerializer)


class DeliveryView(PortalView):
    """One callback with every attempt."""

    actions = {"GET": Action.WEBHOOK_READ}

    @extend_schema(
        operation_id="webhook_deliveries_read", responses=shapes.WebhookDeliveryDetailSerializer
    )
    def get(self, request: Request, delivery_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_delivery(parse_id(delivery_id))
        return Response(shapes.WebhookDeliveryDetailSerializer(found).data)


class RedeliverView(PortalView):
    """Sends a callback again, under the same id."""

    actions = {"POST": Action.WEBHOOK_SEND}

    @extend_schema(
        operation_id="webhook_deliveries_redeliver",
        request=None,
        responses=shapes.WebhookDeliverySerializer,
    )
    def post(self, request: Request, delivery_id: str) -> Response:
        made_due = services.redeliver_webhook(
            context=api_context(request), delivery_id=parse_id(delivery_id)
        )
        return Response(shapes.WebhookDeliverySerializer(made_due).data)


class TestView(PortalView):
    """Sends a signed event of no job, now."""

    actions = {"POST": Action.WEBHOOK_SEND}

    @extend_schema(
        operation_id="webhooks_test",
        request=shapes.WebhookTestSerializer,
        responses=shapes.WebhookOutcomeSerializer,
    )
    def post(self, request: Request) -> Response:
        sent = self.valid(shapes.WebhookTestSerializer, request)
        outcome = services.send_test_webhook(context=api_context(request), **sent)
        return Response(shapes.WebhookOutcomeSerializer(outcome).data)


class SecretView(PortalView):
    """The generations of the secret that signs the tenant's webhooks."""

    actions = {"GET": Action.WEBHOOK_READ, "POST": Action.WEBHOOK_SECRET}

    @extend_schema(
        operation_id="webhook_secret_list", responses=shapes.WebhookSecretSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, selectors.signing_secrets(), shapes.WebhookSecretSerializer)

    @extend_schema(
        operation_id="webhook_secret_make",
        request=shapes.MakeWebhookSecretSerializer,
        responses={201: shapes.MadeWebhookSecretSerializer},
    )
    def post(self, request: Request) -> Response:
        """Makes the first generation, or the next."""
        sent = self.valid(shapes.MakeWebhookSecretSerializer, request)
        made = services.make_webhook_secret(context=api_context(request), **sent)
        return Response(shapes.MadeWebhookSecretSerializer(made).data, status=201)
