"""How routes and their overrides read on the management API."""

from typing import Any

from rest_framework import serializers

from inference.models import Route, RouteOverride, RouteTarget
from inference.models.routes import MOST_TIER, MOST_WEIGHT
from inference.route_services import MOST_TARGETS


class TargetSerializer(serializers.ModelSerializer[RouteTarget]):
    """A deployment that a route leads to, and whether calls can reach it now."""

    deployment_id = serializers.UUIDField()
    deployment = serializers.CharField(source="deployment.name")
    model = serializers.CharField(source="deployment.model.name")
    enabled = serializers.BooleanField(source="deployment.enabled")
    live = serializers.BooleanField(help_text="Whether a worker is ready for it.")

    class Meta:
        model = RouteTarget
        fields = ["deployment_id", "deployment", "model", "weight", "tier", "enabled", "live"]
        read_only_fields = fields


class RouteSerializer(serializers.ModelSerializer[Route]):
    targets = TargetSerializer(many=True)

    class Meta:
        model = Route
        fields = ["id", "name", "description", "reserved", "enabled", "targets", "created_at"]
        read_only_fields = fields


class NewTargetSerializer(serializers.Serializer[Any]):
    deployment_id = serializers.UUIDField()
    weight = serializers.IntegerField(
        min_value=1,
        max_value=MOST_WEIGHT,
        default=1,
        help_text="Its share of the calls of its tier, relative to the others there.",
    )
    tier = serializers.IntegerField(
        min_value=0, max_value=MOST_TIER, default=0, help_text="0 first; later ones are fallbacks."
    )


class RouteChangeSerializer(serializers.Serializer[Any]):
    """What is absent stays as it is; ``targets`` replaces all that there are."""

    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    reserved = serializers.BooleanField(required=False)
    enabled = serializers.BooleanField(required=False)
    targets = serializers.ListField(
        child=NewTargetSerializer(), required=False, max_length=MOST_TARGETS
    )


class NewRouteSerializer(RouteChangeSerializer):
    name = serializers.CharField(max_length=80)
    targets = serializers.ListField(child=NewTargetSerializer(), max_length=MOST_TARGETS)


class OverrideSerializer(serializers.ModelSerializer[RouteOverride]):
    tenant_id = serializers.UUIDField()
    tenant = serializers.CharField(source="tenant.name")
    route_id = serializers.UUIDField()

    class Meta:
        model = RouteOverride
        fields = ["id", "tenant_id", "tenant", "name", "route_id", "created_at"]
        read_only_fields = fields


class NewOverrideSerializer(serializers.Serializer[Any]):
    tenant_id = serializers.UUIDField()
    name = serializers.CharField(
        max_length=80, help_text="What that tenant's callers put into `model`."
    )
