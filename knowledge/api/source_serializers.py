"""How sources of documents read on the management API; a password goes in and never comes out."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from knowledge.models import DocumentSource, OnRemoved, RunState, SourceRun
from knowledge.schedules import MOST_CHARS
from knowledge.sources.services import MOST_NAME_CHARS, MOST_PASSWORD_CHARS
from knowledge.sources.settings import KINDS

RUN_STATES = [state.name.lower() for state in RunState]

_SCHEDULE_HELP = (
    "Minutes, or five fields of cron in the tenant's time zone; empty: when it is asked for."
)


class SourceSettingsField(serializers.JSONField):
    """An object; which entries it has depends on the kind."""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        if not isinstance(value, dict):
            raise serializers.ValidationError("It must be an object.")
        return value


class DocumentSourceSerializer(serializers.ModelSerializer[DocumentSource]):
    """A folder or a database that documents are read out of."""

    knowledge_base_id = serializers.UUIDField()
    kind = serializers.ChoiceField(list(KINDS))
    settings = serializers.DictField(help_text="As the documentation has them for the kind.")
    running = serializers.BooleanField(help_text="It is being read now.")
    next_run_at = serializers.SerializerMethodField(help_text="Null: when it is asked for.")
    problem = serializers.CharField(
        help_text="Why the last run failed, and what to do; else empty."
    )

    class Meta:
        model = DocumentSource
        fields = [
            "id",
            "knowledge_base_id",
            "name",
            "kind",
            "settings",
            "schedule",
            "on_removed",
            "paused",
            "running",
            "next_run_at",
            "last_run_at",
            "problem",
            "created_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_next_run_at(self, source: DocumentSource) -> Any:
        running: bool = source.running  # type: ignore[attr-defined]
        return None if running else source.wake_at


class NewDocumentSourceSerializer(serializers.Serializer[Any]):
    """A source; it is read before it is saved."""

    name = serializers.CharField(max_length=MOST_NAME_CHARS)
    kind = serializers.ChoiceField(list(KINDS))
    settings = SourceSettingsField(help_text="As the documentation has them for the kind.")
    schedule = serializers.CharField(
        max_length=MOST_CHARS, required=False, allow_blank=True, help_text=_SCHEDULE_HELP
    )
    on_removed = serializers.ChoiceField(
        OnRemoved.choices,
        required=False,
        help_text="What becomes of documents that are not in the source any more.",
    )

    password = serializers.CharField(
        max_length=MOST_PASSWORD_CHARS,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        write_only=True,
        help_text="Of a database's user. It is encrypted, and shown to nobody.",
    )


class EditDocumentSourceSerializer(serializers.Serializer[Any]):
    """What is left out stays as it is."""

    name = serializers.CharField(max_length=MOST_NAME_CHARS, required=False)
    settings = SourceSettingsField(required=False)
    schedule = serializers.CharField(
        max_length=MOST_CHARS, required=False, allow_blank=True, help_text=_SCHEDULE_HELP
    )
    on_removed = serializers.ChoiceField(OnRemoved.choices, required=False)
    paused = serializers.BooleanField(required=False)
    password = serializers.CharField(
        max_length=MOST_PASSWORD_CHARS,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        write_only=True,
        help_text="Needed again where the settings would send it elsewhere.",
    )


class RunSourceSerializer(serializers.Serializer[Any]):
    """How a source is read."""

    full = serializers.BooleanField(
        default=False, help_text="Everything is looked at, and what was removed is found."
    )
    empty_allowed = serializers.BooleanField(
        default=False, help_text="Nothing may be found at all, and every document be removed."
    )


class SourceRunSerializer(serializers.ModelSerializer[SourceRun]):
    """One look at a source: how many documents it added, changed and so on."""

    state = serializers.SerializerMethodField()
    waiting = serializers.IntegerField(help_text="Files that were being written, left for later.")

    class Meta:
        model = SourceRun
        fields = [
            "id",
            "state",
            "full",
            "added",
            "changed",
            "removed",
            "unchanged",
            "refused",
            "waiting",
            "error",
            "started_at",
            "ended_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(RUN_STATES))
    def get_state(self, run: SourceRun) -> str:
        return RunState(run.state).name.lower()


class RefusalSerializer(serializers.Serializer[Any]):
    """A file or a row that is no document, and why."""

    key = serializers.CharField()
    problem = serializers.CharField()


class SeenSerializer(serializers.Serializer[Any]):
    """A file or a row as a test found it."""

    key = serializers.CharField()
    name = serializers.CharField()
    text = serializers.CharField(help_text="How a row begins; empty for a file.")
    problem = serializers.CharField(help_text="Why it would be refused; else empty.")
    metadata = serializers.DictField()


class TestedSerializer(serializers.Serializer[Any]):
    """The first entries of a source."""

    entries = SeenSerializer(many=True)
