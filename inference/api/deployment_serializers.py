"""How versions, prices, deployments and workers read on the management API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from inference.api.serializers import DeploymentSerializer, VersionFileSerializer
from inference.engines import engine_names
from inference.models import (
    CheckState,
    Model,
    ModelCheck,
    ModelPrice,
    ModelVersion,
    Worker,
    WorkerState,
)
from inference.worker_selectors import is_silent, load_of, pending, stale_reasons
from inference.worker_services import WorkerOrder

SILENT = "silent"
STALE = ["version", "engine", "options", "context_length"]


class PriceSerializer(serializers.ModelSerializer[ModelPrice]):
    """What a version costs from a moment on, in micro-units of currency a million tokens."""

    class Meta:
        model = ModelPrice
        fields = [
            "id",
            "effective_from",
            "prompt_micros_per_million",
            "completion_micros_per_million",
            "currency",
        ]
        read_only_fields = fields


class NewPriceSerializer(serializers.Serializer[Any]):
    prompt_micros_per_million = serializers.IntegerField(min_value=0)
    completion_micros_per_million = serializers.IntegerField(min_value=0)
    currency = serializers.CharField(default="USD", min_length=3, max_length=3)
    effective_from = serializers.DateTimeField(required=False, help_text="Now if not given.")


class VersionSerializer(serializers.ModelSerializer[ModelVersion]):
    """A version of a model: one artefact, known by the digest of its weights."""

    model = serializers.CharField(source="model.name")
    model_id = serializers.UUIDField()
    version = serializers.CharField(source="label")
    prices = PriceSerializer(many=True)
    files = serializers.SerializerMethodField(
        help_text="As they were when the version was registered."
    )

    class Meta:
        model = ModelVersion
        fields = [
            "id",
            "model_id",
            "model",
            "version",
            "digest",
            "format",
            "architecture",
            "quantization",
            "quality",
            "context_length",
            "licence",
            "provenance",
            "path",
            "files",
            "prices",
            "created_at",
        ]
        read_only_fields = fields

    @extend_schema_field(VersionFileSerializer(many=True))
    def get_files(self, version: ModelVersion) -> list[dict[str, Any]]:
        return [{"name": name, **entry} for name, entry in sorted((version.files or {}).items())]


class FileFaultSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    fault = serializers.ChoiceField(["missing", "corrupt", "extra"])


class FileCheckSerializer(serializers.ModelSerializer[ModelCheck]):
    """The newest check of a version's files: how far it is, or how it ended."""

    version_id = serializers.UUIDField()
    state = serializers.ChoiceField(CheckState.values)
    percent = serializers.IntegerField()
    faults = FileFaultSerializer(many=True)
    detail = serializers.CharField(
        help_text="Why the files are bad where none of them is named; empty else."
    )

    class Meta:
        model = ModelCheck
        fields = [
            "version_id",
            "state",
            "percent",
            "read_bytes",
            "total_bytes",
            "file",
            "faults",
            "detail",
            "asked_at",
            "asked_by",
            "started_at",
            "ended_at",
        ]
        read_only_fields = fields


class NewVersionSerializer(serializers.Serializer[Any]):
    model = serializers.CharField(
        max_length=80, help_text="What callers put into `model`; a new name makes a new model."
    )
    version = serializers.CharField(max_length=40)
    artefact = serializers.CharField(
        max_length=64, help_text="Name of an imported artefact's folder."
    )
    title = serializers.CharField(required=False, allow_blank=True, max_length=120)
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class CatalogueModelSerializer(serializers.ModelSerializer[Model]):
    """A model of the catalogue, served or not, with all of its versions."""

    versions = VersionSerializer(many=True)

    class Meta:
        model = Model
        fields = ["id", "name", "title", "description", "versions", "created_at"]
        read_only_fields = fields


class ModelChangeSerializer(serializers.Serializer[Any]):
    """What is absent stays as it is."""

    title = serializers.CharField(required=False, max_length=120)
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)


class LoadSerializer(serializers.Serializer[Any]):
    """How busy a deployment is now."""

    queued = serializers.IntegerField(help_text="Jobs that wait, of all tenants.")
    wait_seconds = serializers.FloatField(
        allow_null=True, help_text="Until what waits is worked off; null while it is not known."
    )
    workers = serializers.IntegerField(help_text="Workers that are up.")
    ready = serializers.IntegerField(help_text="Those of them that take work.")
    running = serializers.IntegerField()
    slots = serializers.IntegerField()
    tokens_per_second = serializers.FloatField()
    memory_bytes = serializers.IntegerField(help_text="Main memory of all its workers.")


class DeploymentDetailSerializer(DeploymentSerializer):
    """A deployment with its engine options and how busy it is."""

    version_id = serializers.UUIDField()
    digest = serializers.CharField(source="version.digest")
    options = serializers.JSONField()
    load = serializers.SerializerMethodField()

    class Meta(DeploymentSerializer.Meta):
        fields = [*DeploymentSerializer.Meta.fields, "version_id", "digest", "options", "load"]
        read_only_fields = fields

    @extend_schema_field(LoadSerializer)
    def get_load(self, deployment: Any) -> dict[str, Any]:
        found = load_of(deployment, deployment.queued, list(deployment.workers.all()))
        return dict(LoadSerializer(found).data)


class DeploymentChangeSerializer(serializers.Serializer[Any]):
    """What is absent stays as it is; workers that hold the model follow when they load again."""

    version_id = serializers.UUIDField(
        required=False, help_text="Another version of the same model."
    )
    engine = serializers.ChoiceField(engine_names(), required=False)
    options = serializers.DictField(required=False, help_text="The engine's own options.")
    context_length = serializers.IntegerField(required=False, min_value=1)
    default_max_tokens = serializers.IntegerField(required=False, min_value=1)


class NewDeploymentSerializer(DeploymentChangeSerializer):
    name = serializers.SlugField(max_length=60)
    version_id = serializers.UUIDField()
    queue = serializers.SlugField(
        required=False, max_length=60, help_text="The deployment's name if not given."
    )
    enabled = serializers.BooleanField(required=False)


class WorkerSerializer(serializers.ModelSerializer[Worker]):
    """A worker process as its last beat told, and what is wanted of it."""

    deployment_id = serializers.UUIDField()
    deployment = serializers.CharField(source="deployment.name")
    state = serializers.SerializerMethodField(
        help_text="`silent` if it should be up and has not been heard of for ten seconds."
    )
    pending = serializers.SerializerMethodField(
        help_text="Whether it is on its way to its desired state."
    )
    digest = serializers.CharField(
        source="version_digest", help_text="Of the weights that it holds; empty if none."
    )
    stale = serializers.SerializerMethodField(
        help_text="What the deployment has otherwise than what the worker holds."
    )

    class Meta:
        model = Worker
        fields = [
            "id",
            "name",
            "deployment_id",
            "deployment",
            "engine",
            "state",
            "state_since",
            "detail",
            "desired_state",
            "pending",
            "digest",
            "stale",
            "slots",
            "running",
            "waiting",
            "tokens_per_second",
            "memory_bytes",
            "resident_bytes",
            "cache_tokens",
            "cached_tokens",
            "started_at",
            "heartbeat_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField([*WorkerState.values, SILENT]))
    def get_state(self, worker: Worker) -> str:
        return SILENT if is_silent(worker) else worker.state

    @extend_schema_field(serializers.BooleanField())
    def get_pending(self, worker: Worker) -> bool:
        return not is_silent(worker) and pending(worker)

    @extend_schema_field(serializers.ListField(child=serializers.ChoiceField(STALE)))
    def get_stale(self, worker: Worker) -> list[str]:
        return stale_reasons(worker)


class OrderSerializer(serializers.Serializer[Any]):
    """What workers are told; they follow at their next beat."""

    order = serializers.ChoiceField([order.value for order in WorkerOrder])


class ToldSerializer(serializers.Serializer[Any]):
    """The workers that were told."""

    workers = WorkerSerializer(many=True)
