"""Scenarios and their evaluations on the management API."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.models import Evaluation
from knowledge.scenarios import selectors
from knowledge.scenarios.catalogue import get_scenario, scenarios
from knowledge.scenarios.services import install_scenario
from portal.core.api import PortalView
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action


class ScenarioSerializer(serializers.Serializer[Any]):
    """A scenario that can be installed."""

    slug = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    profile = serializers.CharField()


class ScenariosSerializer(serializers.Serializer[Any]):
    items = ScenarioSerializer(many=True)


class InstallScenarioSerializer(serializers.Serializer[Any]):
    scenario = serializers.CharField(max_length=60)
    model = serializers.CharField(
        max_length=80, required=False, help_text="The first that generates here, if left out."
    )


class InstalledSerializer(serializers.Serializer[Any]):
    """What was made."""

    app_id = serializers.UUIDField(source="app.pk")
    trigger_id = serializers.UUIDField(source="trigger.pk")
    knowledge_base_id = serializers.UUIDField()


class EvaluationSerializer(serializers.ModelSerializer[Evaluation]):
    """How an app did on a labelled set."""

    app_id = serializers.UUIDField()
    scores = serializers.DictField(help_text="Shares of the cases, from 0 to 1.")

    class Meta:
        model = Evaluation
        fields = [
            "id",
            "scenario",
            "app_id",
            "app_version",
            "model",
            "cases",
            "scores",
            "seconds",
            "created_at",
        ]
        read_only_fields = fields


class WholeEvaluationSerializer(EvaluationSerializer):
    """An evaluation with the cases that went wrong."""

    failures = serializers.ListField(child=serializers.DictField())

    class Meta(EvaluationSerializer.Meta):
        fields = [*EvaluationSerializer.Meta.fields, "failures"]
        read_only_fields = fields


class ScenariosView(PortalView):
    """Apps with knowledge, trigger, sample data and a labelled set."""

    actions = {"GET": Action.APP_READ, "POST": Action.APP_EDIT}

    @extend_schema(operation_id="scenarios_list", responses=ScenariosSerializer)
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return Response(ScenariosSerializer({"items": list(scenarios().values())}).data)

    @extend_schema(
        operation_id="scenarios_install",
        request=InstallScenarioSerializer,
        responses={201: InstalledSerializer},
    )
    def post(self, request: Request) -> Response:
        """Makes the scenario's knowledge base, app and trigger in the tenant, all or none."""
        sent = self.valid(InstallScenarioSerializer, request)
        made = install_scenario(
            context=api_context(request), slug=sent["scenario"], model=sent.get("model")
        )
        return Response(InstalledSerializer(made).data, status=201)


class EvaluationsView(PortalView):
    """The evaluations of the tenant's apps, newest first."""

    actions = {"GET": Action.APP_READ}

    @extend_schema(
        operation_id="evaluations_list",
        parameters=[OpenApiParameter("scenario", str)],
        responses=EvaluationSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        slug = request.query_params.get("scenario")
        if slug is not None:
            get_scenario(slug)
        return self.page(request, selectors.evaluations(slug), EvaluationSerializer)


class EvaluationView(PortalView):
    """One evaluation with the cases that went wrong."""

    actions = {"GET": Action.APP_READ}

    @extend_schema(operation_id="evaluations_read", responses=WholeEvaluationSerializer)
    def get(self, request: Request, evaluation_id: str) -> Response:
        own_tenant(request)
        found = selectors.get_evaluation(parse_id(evaluation_id))
        return Response(WholeEvaluationSerializer(found).data)
