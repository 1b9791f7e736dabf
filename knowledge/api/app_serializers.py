"""How apps read on the management API."""

from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from knowledge.applications import conversations
from knowledge.applications.calling import MOST_USER_CHARS
from knowledge.applications.dify.deployed import Standing
from knowledge.applications.feedback import MOST_COMMENT_CHARS
from knowledge.applications.spec import AppSpec
from knowledge.models import (
    App,
    AppMessage,
    AppMode,
    AppVersion,
    Conversation,
    MessageState,
    SyncState,
)
from knowledge.models.apps import MOST_KEEP_DAYS, MOST_SLUG_CHARS

MESSAGE_STATES = [state.name.lower() for state in MessageState]
_RATINGS = {"like": 1, "dislike": -1, "none": 0}
_RATING_WORDS = {number: word for word, number in _RATINGS.items()}


class SpecField(serializers.JSONField):
    """The specification of a version, as docs/apps.md describes it."""


class AppSerializer(serializers.ModelSerializer[App]):
    """An app; ``published`` is the version that callers get, 0 for none."""

    class Meta:
        model = App
        fields = [
            "id",
            "slug",
            "name",
            "description",
            "mode",
            "latest",
            "published",
            "allowed_keys",
            "keep_days",
            "created_at",
        ]
        read_only_fields = fields


class _Settings(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80, required=False)
    description = serializers.CharField(max_length=400, required=False, allow_blank=True)
    keep_days = serializers.IntegerField(min_value=1, max_value=MOST_KEEP_DAYS, required=False)
    allowed_keys = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        max_length=50,
        help_text="API keys that may call it; empty for all of the tenant.",
    )


class NewAppSerializer(_Settings):
    """An app with its first version, which is not published."""

    slug = serializers.CharField(max_length=MOST_SLUG_CHARS)
    name = serializers.CharField(max_length=80)
    mode = serializers.ChoiceField(AppMode.choices, default=AppMode.CHAT)
    note = serializers.CharField(max_length=200, required=False, allow_blank=True)
    spec = SpecField()


class EditAppSerializer(_Settings):
    """What is left out stays as it is."""


class AppVersionSerializer(serializers.ModelSerializer[AppVersion]):
    """One version of an app; it never changes."""

    spec = SpecField()

    class Meta:
        model = AppVersion
        fields = ["number", "note", "spec", "created_at"]
        read_only_fields = fields


class NewAppVersionSerializer(serializers.Serializer[Any]):
    """A draft."""

    spec = SpecField()
    note = serializers.CharField(max_length=200, required=False, allow_blank=True)


class PublishAppSerializer(serializers.Serializer[Any]):
    """Which version callers get; the newest if it is left out."""

    version = serializers.IntegerField(min_value=1, required=False)


class AppUsageSerializer(serializers.Serializer[Any]):
    """What an app was used for on one day in UTC."""

    day = serializers.DateField()
    calls = serializers.IntegerField()
    failures = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    likes = serializers.IntegerField()
    dislikes = serializers.IntegerField()


class AppUsageDaysSerializer(serializers.Serializer[Any]):
    """A row for each day with any use."""

    items = AppUsageSerializer(many=True)


class InputSerializer(serializers.Serializer[Any]):
    """What a caller hands in by name."""

    name = serializers.CharField()
    type = serializers.ChoiceField(["text", "number", "boolean", "choice"])
    label = serializers.CharField()  # type: ignore[assignment]
    required = serializers.BooleanField()  # type: ignore[assignment]
    options = serializers.ListField(child=serializers.CharField())
    most_chars = serializers.IntegerField()


class ParametersSerializer(serializers.Serializer[Any]):
    """What a caller needs to know of the published version."""

    slug = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    mode = serializers.ChoiceField(AppMode.choices)
    version = serializers.IntegerField()
    inputs = InputSerializer(many=True)
    opening = serializers.CharField()
    disclaimer = serializers.CharField()


def parameters_of(app: App, version: AppVersion, spec: AppSpec) -> dict[str, Any]:
    """What ``ParametersSerializer`` shows."""
    return {
        "slug": app.slug,
        "name": app.name,
        "description": app.description,
        "mode": app.mode,
        "version": version.number,
        "inputs": [
            {name: getattr(one, name) for name in one.__struct_fields__} for one in spec.inputs
        ],
        "opening": spec.opening,
        "disclaimer": spec.disclaimer,
    }


class ConversationSerializer(serializers.ModelSerializer[Conversation]):
    """A conversation of the calling key with one of its users."""

    title = serializers.CharField(default="", help_text="What it began with.")
    messages = serializers.IntegerField(source="message_count")
    user = serializers.CharField(source="end_user")

    class Meta:
        model = Conversation
        fields = ["id", "title", "user", "messages", "created_at", "touched_at", "expires_at"]
        read_only_fields = fields


class SourceSerializer(serializers.Serializer[Any]):
    """A passage that the model was shown."""

    document = serializers.CharField()
    text = serializers.CharField()
    score = serializers.FloatField()
    knowledge_base_id = serializers.CharField()
    document_id = serializers.CharField()
    position = serializers.IntegerField()


class AppMessageSerializer(serializers.ModelSerializer[AppMessage]):
    """A question and its answer."""

    state = serializers.ChoiceField(MESSAGE_STATES)
    query = serializers.CharField()
    inputs = serializers.DictField()
    answer = serializers.CharField()
    sources = SourceSerializer(many=True)
    rating = serializers.ChoiceField(list(_RATINGS))
    comment = serializers.CharField()

    class Meta:
        model = AppMessage
        fields = [
            "id",
            "version",
            "state",
            "query",
            "inputs",
            "answer",
            "sources",
            "finish_reason",
            "error_code",
            "prompt_tokens",
            "completion_tokens",
            "milliseconds",
            "rating",
            "comment",
            "created_at",
        ]
        read_only_fields = fields

    def to_representation(self, message: AppMessage) -> dict[str, Any]:
        said = conversations.open_message(message)
        return {
            "id": str(message.pk),
            "version": message.version,
            "state": conversations.state_of(message).name.lower(),
            "query": said.query,
            "inputs": said.inputs,
            "answer": said.answer,
            "sources": [msgspec.to_builtins(source) for source in said.sources],
            "finish_reason": message.finish_reason,
            "error_code": message.error_code,
            "prompt_tokens": message.prompt_tokens,
            "completion_tokens": message.completion_tokens,
            "milliseconds": message.milliseconds,
            "rating": _RATING_WORDS[message.rating],
            "comment": conversations.open_comment(message),
            "created_at": serializers.DateTimeField().to_representation(message.created_at),
        }


class FeedbackSerializer(serializers.Serializer[Any]):
    """How an answer was liked; ``none`` takes it back."""

    rating = serializers.ChoiceField(list(_RATINGS))
    comment = serializers.CharField(
        max_length=MOST_COMMENT_CHARS, required=False, allow_blank=True, default=""
    )
    user = serializers.CharField(
        max_length=MOST_USER_CHARS, required=False, allow_blank=True, default=""
    )

    @extend_schema_field(serializers.IntegerField())
    def validate_rating(self, value: str) -> int:
        return _RATINGS[value]


class AppDeploymentSerializer(serializers.Serializer[Any]):
    """Where an app runs, and how it does there."""

    runs = serializers.ChoiceField(["portal", "dify"])
    connection_id = serializers.UUIDField(allow_null=True)
    connection = serializers.CharField(allow_blank=True)
    live = serializers.IntegerField(help_text="The version that answers there; 0 for none.")
    state = serializers.ChoiceField([*SyncState.values, ""])
    error = serializers.CharField(allow_blank=True)
    remote_id = serializers.CharField(allow_blank=True, help_text="The app's id in Dify.")


class NewAppDeploymentSerializer(serializers.Serializer[Any]):
    """In which connection's Dify the app is to run."""

    connection_id = serializers.UUIDField()


def deployment_json(app: App, standing: Standing | None) -> dict[str, Any]:
    """What ``AppDeploymentSerializer`` shows."""
    if standing is None:
        there: dict[str, Any] = {
            "runs": "portal", "connection_id": None, "connection": "", "live": app.published,
            "state": "", "error": "", "remote_id": "",
        }  # fmt: skip
        return there
    return {
        "runs": "dify",
        "connection_id": standing.connection.pk,
        "connection": standing.connection.name,
        "live": standing.live,
        "state": standing.state,
        "error": standing.error,
        "remote_id": standing.remote_id,
    }
