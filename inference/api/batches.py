"""Batches on the management API: their facts and counts; callers run them under ``/v1``."""

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from inference.batches import selectors
from inference.models import Batch, BatchState
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import own_tenant, parse_id
from tenants.permissions import Action

_STATES: Final = {state.name.lower(): state for state in BatchState}


class FaultSerializer(serializers.Serializer[Any]):
    """What is wrong with an input; ``line`` counts from 1, null where it is all of the file."""

    code = serializers.CharField()
    line = serializers.IntegerField(allow_null=True)
    message = serializers.CharField()
    param = serializers.CharField(allow_null=True)


class BatchSerializer(serializers.ModelSerializer[Batch]):
    """A batch's facts. What is in its files is nowhere here: that is its caller's alone."""

    state = serializers.SerializerMethodField()
    api_key_id = serializers.UUIDField()
    api_key_name = serializers.CharField(source="api_key.name")
    user_id = serializers.UUIDField()
    user = serializers.CharField(source="user.email")
    faults = FaultSerializer(source="errors", many=True)
    waiting_for = serializers.CharField(help_text="Why nothing more is run now; empty if it is.")

    class Meta:
        model = Batch
        fields = [
            "id",
            "state",
            "endpoint",
            "model",
            "api_key_id",
            "api_key_name",
            "user_id",
            "user",
            "total",
            "completed",
            "failed",
            "prompt_tokens",
            "completion_tokens",
            "faults",
            "waiting_for",
            "created_at",
            "in_progress_at",
            "expires_at",
            "ended_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(list(_STATES)))
    def get_state(self, batch: Batch) -> str:
        return BatchState(batch.state).name.lower()


class BatchesView(PortalView):
    """The tenant's batches."""

    actions = {"GET": Action.JOB_READ}

    @extend_schema(
        operation_id="batches_list",
        parameters=[OpenApiParameter("state", enum=list(_STATES))],
        responses=BatchSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        found = selectors.batches()
        state = request.query_params.get("state")
        if state is not None:
            if state not in _STATES:
                raise Invalid("'state' is no state of a batch.", param="state")
            found = found.filter(state=_STATES[state])
        return self.page(request, found, BatchSerializer)


class BatchView(PortalView):
    """One batch."""

    actions = {"GET": Action.JOB_READ}

    @extend_schema(operation_id="batches_read", responses=BatchSerializer)
    def get(self, request: Request, batch_id: str) -> Response:
        own_tenant(request)
        return Response(BatchSerializer(selectors.get_batch(parse_id(batch_id))).data)
