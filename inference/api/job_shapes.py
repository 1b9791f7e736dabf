"""What a submitted job looks like on the management API, and its result."""

from typing import Any, Final

from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers

from inference.gateway.wire.kept import CHAT_ENDPOINT, ENDPOINTS
from inference.jobs.submission import DAY_SECONDS, MOST_METADATA, MOST_SECONDS
from inference.models import Priority
from portal.core.outgoing import MOST_URL_CHARS

_LEAST_SECONDS: Final = 60
_NAME_CHARS: Final = 64
_TEXT_CHARS: Final = 512


class JobOptionsSerializer(serializers.Serializer[Any]):
    """What a job has beside the request that it is."""

    endpoint = serializers.ChoiceField(
        list(ENDPOINTS),
        default=CHAT_ENDPOINT,
        help_text="Whose request this is: its body is that endpoint's.",
    )
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
    """A request as its endpoint takes it, and options.

    Of ``/v1/chat/completions`` without ``stream``, with ``messages``; of ``/v1/embeddings`` with
    ``input``; of ``/v1/rerank`` with ``query`` and ``documents``.
    """

    model = serializers.CharField()
    messages = serializers.ListField(child=serializers.DictField(), required=False)
    max_tokens = serializers.IntegerField(required=False)
    temperature = serializers.FloatField(required=False)
    top_p = serializers.FloatField(required=False)
    stop = serializers.ListField(child=serializers.CharField(), required=False)
    seed = serializers.IntegerField(required=False)
    user = serializers.CharField(required=False)
    response_format = serializers.DictField(required=False)
    top_k = serializers.IntegerField(required=False)
    min_tokens = serializers.IntegerField(required=False)
    input = serializers.JSONField(
        required=False, help_text="A text, token ids, or a list of either."
    )
    input_type = serializers.ChoiceField(["document", "query"], required=False)
    encoding_format = serializers.ChoiceField(["float", "base64"], required=False)
    dimensions = serializers.IntegerField(required=False)
    query = serializers.CharField(required=False)
    documents = serializers.ListField(child=serializers.JSONField(), required=False)
    top_n = serializers.IntegerField(required=False)


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


class InputUsageSerializer(serializers.Serializer[Any]):
    prompt_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()


class EmbeddingSerializer(serializers.Serializer[Any]):
    object = serializers.CharField()
    index = serializers.IntegerField()
    embedding = serializers.JSONField(help_text="Numbers, or base64 of little-endian floats.")


class EmbeddingsSerializer(serializers.Serializer[Any]):
    """A list of embeddings, as ``/v1/embeddings`` answers."""

    object = serializers.CharField()
    data = EmbeddingSerializer(many=True)  # type: ignore[assignment]
    model = serializers.CharField()
    usage = InputUsageSerializer()


class RankSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    relevance_score = serializers.FloatField()


class RankingSerializer(serializers.Serializer[Any]):
    """Documents in order, as ``/v1/rerank`` answers."""

    id = serializers.CharField()
    model = serializers.CharField()
    results = RankSerializer(many=True)
    usage = InputUsageSerializer()


RESULT: Final = PolymorphicProxySerializer(
    component_name="JobResult",
    serializers=[CompletionSerializer, EmbeddingsSerializer, RankingSerializer],
    resource_type_field_name=None,
)
