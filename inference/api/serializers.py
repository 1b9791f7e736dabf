"""How jobs, models and deployments read on the management API."""

from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from inference.jobs.results import result_expiry
from inference.models import Deployment, Job, JobState, Model, Priority
from inference.selectors import place_of, timeline

STATES = [state.name.lower() for state in JobState]
PRIORITIES = [priority.name.lower() for priority in Priority]


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job's facts. Prompt and answer are nowhere here: they are the caller's alone."""

    model = serializers.CharField(source="sku")
    state = serializers.SerializerMethodField()
    priority = serializers.SerializerMethodField()
    api_key_id = serializers.UUIDField()
    api_key_name = serializers.CharField(source="api_key.name")
    user_id = serializers.UUIDField()
    user = serializers.CharField(source="user.label")
    completion_tokens = serializers.IntegerField(source="watermark")

    class Meta:
        model = Job
        fields = [
            "id",
            "model",
            "kind",
            "state",
            "priority",
            "stream",
            "api_key_id",
            "api_key_name",
            "user_id",
            "user",
            "request_id",
            "prompt_tokens",
            "completion_tokens",
            "finish_reason",
            "error_code",
            "error_message",
            "attempts",
            "admitted_at",
            "finished_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(STATES))
    def get_state(self, job: Job) -> str:
        return JobState(job.state).name.lower()

    @extend_schema_field(serializers.ChoiceField(PRIORITIES))
    def get_priority(self, job: Job) -> str:
        return Priority(job.priority).name.lower()


class MomentSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    at = serializers.DateTimeField()


class PlaceSerializer(serializers.Serializer[Any]):
    """A waiting job's place in fair order, 1 being next, and the seconds it is likely to wait."""

    position = serializers.IntegerField()
    wait_seconds = serializers.FloatField(allow_null=True)


class JobDetailSerializer(JobSerializer):
    timeline = serializers.SerializerMethodField()
    queue = serializers.SerializerMethodField(help_text="Null once the job does not wait.")
    result_expires_at = serializers.SerializerMethodField(
        help_text="When the result is deleted; null where none is kept."
    )

    class Meta(JobSerializer.Meta):
        fields = [
            *JobSerializer.Meta.fields,
            "parameters",
            "worker",
            "timeline",
            "queue",
            "result_expires_at",
        ]
        read_only_fields = fields

    @extend_schema_field(PlaceSerializer(allow_null=True))
    def get_queue(self, job: Job) -> dict[str, Any] | None:
        place = place_of(job)
        return None if place is None else dict(PlaceSerializer(place).data)

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_result_expires_at(self, job: Job) -> datetime | None:
        return result_expiry(job)

    @extend_schema_field(MomentSerializer(many=True))
    def get_timeline(self, job: Job) -> list[dict[str, Any]]:
        return list(MomentSerializer(timeline(job), many=True).data)


class QualitySerializer(serializers.Serializer[Any]):
    """A quantized model beside the same model in fp32, on a text."""

    size_ratio = serializers.FloatField(help_text="Bytes of weights over their bytes in fp32.")
    perplexity = serializers.FloatField()
    reference_perplexity = serializers.FloatField()
    top1_agreement = serializers.FloatField(
        help_text="Share of places, 0 to 1, where both models' likeliest token is the same."
    )
    tokens = serializers.IntegerField(help_text="How many places were compared.")
    text_sha256 = serializers.CharField()


class GateSerializer(serializers.ModelSerializer[Model]):
    """What a quantized version must be worth to be deployed."""

    least_agreement = serializers.FloatField(min_value=0, max_value=1)
    most_size = serializers.FloatField(min_value=0, max_value=1)

    class Meta:
        model = Model
        fields = ["least_agreement", "most_size"]


class ModelSerializer(serializers.ModelSerializer[Model]):
    """A model that can be called now, with its price in micro-units a million tokens."""

    deployment = serializers.CharField(source="deployment_name")
    version = serializers.CharField(source="version_label")
    context_length = serializers.IntegerField()
    quality = QualitySerializer(
        source="version_quality.measured",
        allow_null=True,
        help_text="Null where the version is not quantized, or was quantized by its publisher.",
    )
    prompt_micros_per_million = serializers.IntegerField(allow_null=True)
    completion_micros_per_million = serializers.IntegerField(allow_null=True)
    currency = serializers.CharField(allow_null=True)

    class Meta:
        model = Model
        fields = [
            "id",
            "name",
            "title",
            "description",
            "task",
            "version",
            "deployment",
            "context_length",
            "quality",
            "prompt_micros_per_million",
            "completion_micros_per_million",
            "currency",
        ]
        read_only_fields = fields


class VersionFileSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    sha256 = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes.")


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    model = serializers.CharField(source="model.name")
    version = serializers.CharField(source="version.label")

    class Meta:
        model = Deployment
        fields = [
            "id",
            "name",
            "model",
            "version",
            "engine",
            "queue",
            "context_length",
            "default_max_tokens",
            "enabled",
            "created_at",
        ]
        read_only_fields = fields
