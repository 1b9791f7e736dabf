"""How audit events read on the management API."""

from typing import Any

from rest_framework import serializers

from audit.models import AuditEvent, Category, Outcome


class EventSerializer(serializers.ModelSerializer[AuditEvent]):
    tenant_id = serializers.UUIDField()

    class Meta:
        model = AuditEvent
        fields = [
            "id",
            "recorded_at",
            "occurred_at",
            "tenant_id",
            "category",
            "action",
            "outcome",
            "reason",
            "actor_type",
            "actor_id",
            "actor_label",
            "on_behalf_of",
            "api_key_id",
            "auth_method",
            "address",
            "request_id",
            "client_request_id",
            "object_type",
            "object_id",
            "object_label",
            "intent_id",
        ]
        read_only_fields = fields


class FilterSerializer(serializers.Serializer[Any]):
    """What can be asked of the trail; times are ISO 8601 with a zone."""

    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)
    category = serializers.ChoiceField(Category.values, required=False)
    actor = serializers.CharField(required=False, max_length=254)
    action = serializers.CharField(required=False, max_length=80)
    outcome = serializers.ChoiceField(Outcome.values, required=False)
    object = serializers.CharField(
        required=False, max_length=254, source="subject", help_text="An id, or part of a name."
    )
    request_id = serializers.CharField(required=False, max_length=128)
    tenant_id = serializers.UUIDField(required=False)


class EventDetailSerializer(EventSerializer):
    """An event with the row before and after, and what else is told."""

    before = serializers.JSONField(source="body.before", allow_null=True, default=None)
    after = serializers.JSONField(source="body.after", allow_null=True, default=None)
    detail = serializers.JSONField(source="body.detail", allow_null=True, default=None)

    class Meta(EventSerializer.Meta):
        fields = [*EventSerializer.Meta.fields, "before", "after", "detail"]
        read_only_fields = fields
