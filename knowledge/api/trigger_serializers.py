"""How triggers, their runs and the events that come in read on the management API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from knowledge.models import Trigger, TriggerKind, TriggerRun, TriggerRunState
from knowledge.models.triggers import MOST_KEEP_DAYS
from knowledge.triggers.intake import MOST_EVENTS
from knowledge.triggers.rules import MOST_MINUTES
from knowledge.triggers.vault import contents_of

RUN_STATES = [state.name.lower() for state in TriggerRunState]

_SETTINGS = [
    "enabled",
    "stream",
    "rules",
    "threshold",
    "cooldown_minutes",
    "schedule",
    "inputs",
    "alert_when",
    "keep_days",
]


class TriggerSerializer(serializers.ModelSerializer[Trigger]):
    """A trigger, and how its runs went."""

    app_id = serializers.UUIDField()
    started_by = serializers.ChoiceField(choices=TriggerKind.choices, source="kind")
    receiver = serializers.CharField(help_text="Where alerts are told; path and query are secret.")
    runs = serializers.IntegerField(source="run_count")
    runs_failed = serializers.IntegerField(source="failed_count")
    alerts = serializers.IntegerField(source="alert_count")
    last_run_at = serializers.DateTimeField(allow_null=True)

    class Meta:
        model = Trigger
        fields = [
            "id",
            "app_id",
            "name",
            "started_by",
            *_SETTINGS,
            "receiver",
            "next_at",
            "runs",
            "runs_failed",
            "alerts",
            "last_run_at",
            "created_at",
        ]
        read_only_fields = fields


class EditTriggerSerializer(serializers.Serializer[Any]):
    """What is left out stays as it is."""

    name = serializers.CharField(max_length=80, required=False)
    enabled = serializers.BooleanField(required=False)
    stream = serializers.CharField(max_length=60, required=False)
    rules = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        help_text="Each with 'name', 'when' and 'weight'; docs/triggers.md says what a condition "
        "may be. Without rules each event starts the app.",
    )
    threshold = serializers.FloatField(
        required=False, help_text="What the rules that hold must weigh together."
    )
    cooldown_minutes = serializers.IntegerField(
        min_value=0,
        max_value=MOST_MINUTES,
        required=False,
        help_text="So long after a start, the same subject starts the app no more.",
    )
    schedule = serializers.CharField(
        max_length=100,
        required=False,
        help_text="Minutes, or cron's five fields in the tenant's time zone: '30 7 * * mon-fri'.",
    )
    inputs = serializers.DictField(
        child=serializers.CharField(max_length=4000),
        required=False,
        help_text="Name of an input to a text, or to $.field, $event, $recent, $findings, "
        "$subject, $type, $time.",
    )
    alert_when = serializers.DictField(
        allow_null=True,
        required=False,
        help_text="A condition on the answer, which must be a JSON object.",
    )
    notify_url = serializers.CharField(
        max_length=2000,
        allow_blank=True,
        required=False,
        help_text="Where a signed webhook tells of an alert; empty for nowhere.",
    )
    keep_days = serializers.IntegerField(
        min_value=0,
        max_value=MOST_KEEP_DAYS,
        required=False,
        help_text="How long what a run was given and answered is kept; 0 keeps nothing of it.",
    )


class NewTriggerSerializer(EditTriggerSerializer):
    """A trigger of an app: by events it needs 'stream', by a schedule 'schedule'."""

    name = serializers.CharField(max_length=80)
    app_id = serializers.UUIDField()
    started_by = serializers.ChoiceField(choices=TriggerKind.choices, source="kind")


class StartTriggerSerializer(serializers.Serializer[Any]):
    inputs = serializers.DictField(required=False)


@extend_schema_field({"type": "string", "enum": RUN_STATES})
class RunStateField(serializers.Field[Any, Any, Any, Any]):
    def to_representation(self, value: int) -> str:
        return TriggerRunState(value).name.lower()


class TriggerRunSerializer(serializers.ModelSerializer[TriggerRun]):
    """A run, without what it was given and answered."""

    trigger_id = serializers.UUIDField()
    state = RunStateField(read_only=True)
    job_id = serializers.UUIDField(allow_null=True, help_text="The job that answers.")

    class Meta:
        model = TriggerRun
        fields = [
            "id",
            "trigger_id",
            "state",
            "score",
            "alert",
            "app_version",
            "job_id",
            "waiting_for",
            "error",
            "created_at",
            "finished_at",
        ]
        read_only_fields = fields


class RunContentsSerializer(serializers.Serializer[Any]):
    """What a run was given and answered."""

    inputs = serializers.DictField()
    findings = serializers.DictField(
        child=serializers.CharField(), help_text="Why each rule held, by its name."
    )
    answer = serializers.CharField()


class WholeTriggerRunSerializer(TriggerRunSerializer):
    """A run with what it was given and answered; null once that is not kept any more."""

    contents = serializers.SerializerMethodField()

    class Meta(TriggerRunSerializer.Meta):
        fields = [*TriggerRunSerializer.Meta.fields, "contents"]
        read_only_fields = fields

    @extend_schema_field(RunContentsSerializer(allow_null=True))
    def get_contents(self, run: TriggerRun) -> Any:
        found = contents_of(run)
        return None if found is None else RunContentsSerializer(found).data


class StreamEventSerializer(serializers.Serializer[Any]):
    """One event, in the words of CloudEvents."""

    id = serializers.CharField(
        max_length=100,
        required=False,
        help_text="The sender's name for it: the same one again is the same event.",
    )
    type = serializers.CharField(max_length=100, required=False)
    subject = serializers.CharField(
        max_length=200,
        required=False,
        help_text="What it is about, such as an account or a device; windows count by it.",
    )
    time = serializers.DateTimeField(
        required=False, source="at", help_text="When it happened; now, if left out."
    )
    data = serializers.DictField(help_text="What happened.")  # type: ignore[assignment]


class EventsSerializer(serializers.Serializer[Any]):
    stream = serializers.CharField(
        max_length=60, help_text="1 to 60 of a-z, 0-9 and hyphens; it has not to be made before."
    )
    events = serializers.ListField(
        child=StreamEventSerializer(), min_length=1, max_length=MOST_EVENTS
    )


class AcceptedSerializer(serializers.Serializer[Any]):
    """How many events are new, and how many were here already."""

    accepted = serializers.IntegerField()
    repeated = serializers.IntegerField()
