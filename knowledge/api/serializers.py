"""How knowledge bases read on the management API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from knowledge.filters import OPERATORS
from knowledge.models import (
    Document,
    DocumentState,
    DocumentVersion,
    KnowledgeBase,
    Method,
    SyncState,
)
from knowledge.models.bases import MOST_NAME_CHARS, MOST_TOP_K
from knowledge.retrieval import MOST_QUERY_CHARS
from knowledge.services.bases import MOST_TEMPLATE_CHARS

STATES = [state.name.lower() for state in DocumentState]

_SETTINGS = [
    "name",
    "description",
    "method",
    "top_k",
    "score_threshold",
    "embedding_model",
    "rerank_model",
    "prompt_template",
]


class InDifySerializer(serializers.Serializer[Any]):
    """How an object does in Dify."""

    state = serializers.ChoiceField(SyncState.choices)
    message = serializers.CharField(help_text="What went wrong, and what to do; else empty.")


def _in_dify(row: Any) -> dict[str, str] | None:
    if row.sync_state is None:
        return None
    return {"state": row.sync_state, "message": row.sync_error}


class KnowledgeBaseSerializer(serializers.ModelSerializer[KnowledgeBase]):
    """A knowledge base, and how its documents do."""

    connection_id = serializers.UUIDField(
        allow_null=True, help_text="In whose workspace of Dify it stands too; null for none."
    )
    in_dify = serializers.SerializerMethodField(help_text="Null where it is not to stand there.")
    documents = serializers.IntegerField(source="document_count")
    documents_ready = serializers.IntegerField(source="ready_count")
    documents_under_way = serializers.IntegerField(source="working_count")
    documents_failed = serializers.IntegerField(source="failed_count")

    class Meta:
        model = KnowledgeBase
        fields = [
            "id",
            *_SETTINGS,
            "connection_id",
            "in_dify",
            "documents",
            "documents_ready",
            "documents_under_way",
            "documents_failed",
            "created_at",
        ]
        read_only_fields = fields

    @extend_schema_field(InDifySerializer(allow_null=True))
    def get_in_dify(self, base: KnowledgeBase) -> dict[str, str] | None:
        return _in_dify(base)


class NewKnowledgeBaseSerializer(serializers.Serializer[Any]):
    """What is left out is chosen: a served embedding model, and the method that goes with it."""

    name = serializers.CharField(max_length=MOST_NAME_CHARS)
    description = serializers.CharField(max_length=400, required=False, allow_blank=True)
    method = serializers.ChoiceField(Method.choices, required=False)
    top_k = serializers.IntegerField(min_value=1, max_value=MOST_TOP_K, required=False)
    score_threshold = serializers.FloatField(
        min_value=0, max_value=1, required=False, allow_null=True
    )
    embedding_model = serializers.CharField(max_length=80, required=False, allow_blank=True)
    rerank_model = serializers.CharField(max_length=80, required=False, allow_blank=True)
    prompt_template = serializers.CharField(
        max_length=MOST_TEMPLATE_CHARS, required=False, trim_whitespace=False
    )
    connection_id = serializers.UUIDField(required=False, allow_null=True)


class EditKnowledgeBaseSerializer(NewKnowledgeBaseSerializer):
    """What is left out stays as it is."""

    name = serializers.CharField(max_length=MOST_NAME_CHARS, required=False)


class DocumentSerializer(serializers.ModelSerializer[Document]):
    """A document; ``version`` is the one that is searched, 0 before there is any."""

    knowledge_base_id = serializers.UUIDField()
    state = serializers.SerializerMethodField()
    archived = serializers.SerializerMethodField()
    parts = serializers.IntegerField(help_text="Passages of the newest version.")
    parts_done = serializers.IntegerField(help_text="How many of them have their vectors.")
    waiting_for = serializers.CharField(help_text="Why it does not go on now; empty if it does.")
    error = serializers.CharField(help_text="What went wrong, and what to do; else empty.")
    in_dify = serializers.SerializerMethodField(help_text="Null before it is to stand there.")

    class Meta:
        model = Document
        fields = [
            "id",
            "knowledge_base_id",
            "name",
            "source",
            "metadata",
            "enabled",
            "archived",
            "version",
            "latest",
            "state",
            "passages",
            "parts",
            "parts_done",
            "waiting_for",
            "error",
            "in_dify",
            "created_at",
            "changed_at",
        ]
        read_only_fields = fields

    @extend_schema_field(InDifySerializer(allow_null=True))
    def get_in_dify(self, document: Document) -> dict[str, str] | None:
        return _in_dify(document)

    @extend_schema_field(serializers.ChoiceField(STATES))
    def get_state(self, document: Document) -> str:
        return DocumentState(document.state).name.lower()

    def get_archived(self, document: Document) -> bool:
        return document.archived_at is not None


class MetadataField(serializers.JSONField):
    """An object of texts, numbers and booleans."""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if not isinstance(value, dict):
            raise serializers.ValidationError("It must be an object.")
        return value


class NewTextSerializer(serializers.Serializer[Any]):
    """A document that is a text; a name that is there already gets a new version."""

    name = serializers.CharField(max_length=200)
    text = serializers.CharField(trim_whitespace=False)
    metadata = MetadataField(required=False)


class NewFileSerializer(serializers.Serializer[Any]):
    """A file: ``multipart/form-data``, with the metadata as JSON."""

    file = serializers.FileField(max_length=200, allow_empty_file=True)
    metadata = MetadataField(required=False, binary=True)


class EditDocumentSerializer(serializers.Serializer[Any]):
    """What is left out stays as it is."""

    name = serializers.CharField(max_length=200, required=False)
    metadata = MetadataField(required=False)
    enabled = serializers.BooleanField(required=False)
    archived = serializers.BooleanField(required=False)


class DocumentVersionSerializer(serializers.ModelSerializer[DocumentVersion]):
    """One version's facts."""

    sha256 = serializers.CharField(source="digest")

    class Meta:
        model = DocumentVersion
        fields = ["number", "kind", "size", "sha256", "created_at"]
        read_only_fields = fields


class DocumentTextSerializer(DocumentVersionSerializer):
    """A version with its text, which is null until it has been read."""

    text = serializers.CharField(allow_null=True)

    class Meta(DocumentVersionSerializer.Meta):
        fields = [*DocumentVersionSerializer.Meta.fields, "text"]
        read_only_fields = fields


class DiffSerializer(serializers.Serializer[Any]):
    """A unified diff, line by line; empty if both say the same."""

    lines = serializers.ListField(child=serializers.CharField())


class ConditionSerializer(serializers.Serializer[Any]):
    """One condition of documents' metadata; ``document_name`` stands for the name."""

    name = serializers.CharField(max_length=64)
    comparison_operator = serializers.ChoiceField(list(OPERATORS))
    value = serializers.JSONField(required=False, allow_null=True, default=None)

    def validate_value(self, value: Any) -> Any:
        if value is not None and not isinstance(value, str | int | float | bool):
            raise serializers.ValidationError("It must be a text, a number or a boolean.")
        return value


class ConditionsSerializer(serializers.Serializer[Any]):
    """Which documents are searched."""

    logical_operator = serializers.ChoiceField(["and", "or"], default="and")
    conditions = ConditionSerializer(many=True)


class RetrieveSerializer(serializers.Serializer[Any]):
    """What is asked; what is left out is as the knowledge base has it."""

    query = serializers.CharField(max_length=MOST_QUERY_CHARS)
    method = serializers.ChoiceField(Method.choices, required=False)
    top_k = serializers.IntegerField(min_value=1, max_value=MOST_TOP_K, required=False)
    score_threshold = serializers.FloatField(min_value=0, max_value=1, required=False)
    rerank = serializers.BooleanField(default=True)
    metadata_condition = ConditionsSerializer(required=False, allow_null=True)


class PassageSerializer(serializers.Serializer[Any]):
    """One passage that was found."""

    id = serializers.UUIDField()
    document_id = serializers.UUIDField()
    document = serializers.CharField()
    version = serializers.IntegerField()
    position = serializers.IntegerField(help_text="Of the passage in the document, from 0.")
    score = serializers.FloatField()
    text = serializers.CharField()
    metadata = serializers.DictField()


class FoundSerializer(serializers.Serializer[Any]):
    """Passages, best first; ``degraded`` says what could not be asked, else it is empty."""

    method = serializers.ChoiceField(Method.choices)
    degraded = serializers.CharField()
    passages = PassageSerializer(many=True)
