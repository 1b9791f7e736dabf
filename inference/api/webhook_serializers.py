"""How webhooks read on the management API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from inference.models import WebhookAttempt, WebhookDelivery, WebhookSecret, WebhookState
from inference.webhooks.services import DEFAULT_OVERLAP_SECONDS, MOST_OVERLAP_SECONDS
from inference.webhooks.signing import message_id

STATES = [state.name.lower() for state in WebhookState]


class WebhookDeliverySerializer(serializers.ModelSerializer[WebhookDelivery]):
    """A job's callback. Of its URL only the origin is shown: the rest may be a secret."""

    webhook_id = serializers.SerializerMethodField(help_text="The same at every attempt.")
    job_id = serializers.UUIDField(
        allow_null=True, help_text="Whose end it tells of; null where it tells of something else."
    )
    event = serializers.CharField(
        allow_null=True, help_text="What else it tells of, such as trigger.alert; else null."
    )
    receiver = serializers.CharField(source="origin")
    state = serializers.SerializerMethodField()
    next_attempt_at = serializers.DateTimeField(source="due_at", allow_null=True)

    class Meta:
        model = WebhookDelivery
        fields = [
            "id",
            "webhook_id",
            "job_id",
            "event",
            "receiver",
            "state",
            "attempts",
            "last_attempt_at",
            "last_status",
            "last_error",
            "next_attempt_at",
            "created_at",
            "finished_at",
        ]
        read_only_fields = fields

    def get_webhook_id(self, delivery: WebhookDelivery) -> str:
        return message_id(delivery.id)

    @extend_schema_field(serializers.ChoiceField(STATES))
    def get_state(self, delivery: WebhookDelivery) -> str:
        return WebhookState(delivery.state).name.lower()


class WebhookAttemptSerializer(serializers.ModelSerializer[WebhookAttempt]):
    class Meta:
        model = WebhookAttempt
        fields = ["number", "sent_at", "milliseconds", "status", "error"]
        read_only_fields = fields


class WebhookDeliveryDetailSerializer(WebhookDeliverySerializer):
    log = WebhookAttemptSerializer(many=True)

    class Meta(WebhookDeliverySerializer.Meta):
        fields = [*WebhookDeliverySerializer.Meta.fields, "log"]
        read_only_fields = fields


class WebhookTestSerializer(serializers.Serializer[Any]):
    url = serializers.CharField(max_length=2000)


class WebhookOutcomeSerializer(serializers.Serializer[Any]):
    """What came back; ``status`` is null where there was no answer."""

    delivered = serializers.BooleanField()
    status = serializers.IntegerField(allow_null=True)
    error = serializers.CharField()
    milliseconds = serializers.IntegerField()


class WebhookSecretSerializer(serializers.ModelSerializer[WebhookSecret]):
    """One generation; the present one has no ``valid_until``."""

    class Meta:
        model = WebhookSecret
        fields = ["id", "generation", "created_at", "valid_until"]
        read_only_fields = fields


class MadeWebhookSecretSerializer(serializers.Serializer[Any]):
    """A new generation and its secret, which is shown this once."""

    generation = WebhookSecretSerializer(source="row")
    secret = serializers.CharField()


class MakeWebhookSecretSerializer(serializers.Serializer[Any]):
    overlap_seconds = serializers.IntegerField(
        default=DEFAULT_OVERLAP_SECONDS,
        min_value=0,
        max_value=MOST_OVERLAP_SECONDS,
        help_text="How long the former secret signs beside the new one.",
    )
