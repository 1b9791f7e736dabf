"""What a submitted job looks like on the management API, and its result."""

from typing import Any, Final

from rest_framework import serializers

from inference.jobs.submission import DAY_SECONDS, MOST_METADATA, MOST_SECONDS
from inference.models import Priority
from inference.webhooks.targets import MOST_URL_CHARS

_LEAST_SECONDS: Final = 60
_NAME_CHARS: Final = 64
_TEXT_CHARS: Final = 512


class JobOptionsSerializer(serializers.Serializer[Any]):
    """What a job has beside the chat completion it asks for."""

    priority = serializers.ChoiceField(
        [p.name.lower() for p in Priority], default=Priority.NORMAL.name.lower()
    )
    result_ttl = serializers.IntegerField(
        min_value=_LEAST_SECONDS,
        max_value=MOST_SECONDS,
        default=DAY_SECONDS,
        help_text="Seconds for which the result is kept once the job has ended.",
    )
    max_wait = serializers.IntegerField(
        min_value=_LEAST_SECONDS,
        max_value=MOST_SECONDS,
        default=DAY_SECONDS,
        help_text="Seconds that the job may wait and run.",
    )
    metadata = serializers.DictField(
        child=serializers.CharField(max_length=_TEXT_CHARS, allow_blank=True),
        default=dict,
        help_text=f"Up to {MOST_METADATA} short texts of your own, kept in clear.",
    )

    callback_url = serializers.CharField(
        max_length=MOST_URL_CHARS,
        allow_null=True,
        default=None,
        help_text="A webhook tells this URL how the job ended; it needs a signing secret.",
    )

    def validate_metadata(self, metadata: dict[str, str]) -> dict[str, str]:
        if len(metadata) > MOST_METADATA:
            raise serializers.ValidationError(f"Give at most {MOST_METADATA} texts.")
        for name in metadata:
            if not 0 < len(name) <= _NAME_CHARS or "\x00" in name:
                raise serializers.ValidationError(
                    f"A name must have 1 to {_NAME_CHARS} characters."
                )
        return metadata


class NewJobSerializer(JobOptionsSerializer):
    """A chat completion as ``/v1/chat/completions`` takes it, without ``stream``, and options."""

    model = serializers.CharField()
    messages = serializers.ListField(child=serializers.DictField())
    max_tokens = serializers.IntegerField(required=False)
    temperature = serializers.FloatField(required=False)
    top_p = serializers.FloatField(required=False)
    stop = serializers.ListField(child=serializers.CharField(), required=False)
    seed = serializers.IntegerField(required=False)
    user = serializers.CharField(required=False)
    response_format = serializers.DictField(required=False)
    top_k = serializers.IntegerField(required=False)
    min_tokens = serializers.IntegerField(required=False)


class MessageSerializer(serializers.Serializer[Any]):
    role = serializers.CharField()
    content = serializers.CharField()


class CompletionChoiceSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    message = MessageSerializer()
    finish_reason = serializers.ChoiceField(["stop", "length"])


class CompletionUsageSerializer(serializers.Serializer[Any]):
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()


class CompletionSerializer(serializers.Serializer[Any]):
    """A ``chat.completion`` object, as ``/v1/chat/completions`` answers."""

    id = serializers.CharField()
    object = serializers.CharField()
    created = serializers.IntegerField()
    model = serializers.CharField()
    choices = CompletionChoiceSerializer(many=True)
    usage = CompletionUsageSerializer()
