"""How keeping in step reads on the management API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from knowledge.models import Decision, DeletionReceipt, RemoteObject, SyncState
from knowledge.sync.planning import Verb, Why


class SyncProblemSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField(help_text="Why nothing goes on, and what to do.")
    since = serializers.DateTimeField()


class QueueSerializer(serializers.Serializer[Any]):
    """How many objects are how far."""

    waiting = serializers.IntegerField()
    indexing = serializers.IntegerField()
    failed = serializers.IntegerField()
    conflicts = serializers.IntegerField()
    in_step = serializers.IntegerField()
    oldest = serializers.DateTimeField(
        allow_null=True, help_text="Since when the one waits that has waited longest."
    )


class SyncSerializer(serializers.Serializer[Any]):
    """How a connection is kept in step."""

    paused = serializers.BooleanField()
    observed_at = serializers.DateTimeField(
        allow_null=True, help_text="When Dify was last looked at whole."
    )
    problem = SyncProblemSerializer(allow_null=True)
    queue = QueueSerializer()


class PausedSerializer(serializers.Serializer[Any]):
    paused = serializers.BooleanField()


class StepSerializer(serializers.Serializer[Any]):
    """One thing that will be done."""

    verb = serializers.ChoiceField([verb.value for verb in Verb])
    why = serializers.ChoiceField([why.value for why in Why])
    kind = serializers.CharField()
    name = serializers.CharField()
    remote_id = serializers.CharField(help_text="In Dify; empty before it is there.")
    aspects = serializers.ListField(child=serializers.CharField())
    what = serializers.CharField(help_text="The same in words.")
    object_id = serializers.UUIDField(
        allow_null=True, help_text="Of the object, to decide about it; null before it is noted."
    )


class PlanSerializer(serializers.Serializer[Any]):
    """What the runner would do now, by what was last seen in Dify, in its order."""

    observed_at = serializers.DateTimeField(allow_null=True)
    total = serializers.IntegerField()
    steps = StepSerializer(many=True, help_text="The first 500 of them.")


class RemoteObjectSerializer(serializers.ModelSerializer[RemoteObject]):
    """An object in Dify: how it does."""

    name = serializers.CharField(source="label")
    state = serializers.ChoiceField(SyncState.choices)
    local_id = serializers.UUIDField(
        allow_null=True, help_text="Of what it is in the portal; null if it was made in Dify."
    )
    message = serializers.CharField(source="error", help_text="What went wrong; else empty.")
    changed = serializers.SerializerMethodField(
        help_text="Aspects that are other in Dify than they were when they were sent."
    )

    class Meta:
        model = RemoteObject
        fields = [
            "id",
            "kind",
            "name",
            "local_id",
            "remote_id",
            "state",
            "gone",
            "changed",
            "message",
            "attempts",
            "waiting_since",
            "next_at",
            "synced_at",
        ]
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_changed(self, link: RemoteObject) -> list[str]:
        return sorted(a for a, value in link.seen.items() if value != link.shown.get(a))


class DecisionSerializer(serializers.Serializer[Any]):
    decision = serializers.ChoiceField(Decision.choices)


class DeletionReceiptSerializer(serializers.ModelSerializer[DeletionReceipt]):
    """What was deleted in Dify."""

    name = serializers.CharField(source="label")
    contained = serializers.ListField(
        child=serializers.CharField(), help_text="Ids in Dify of what was deleted with it."
    )
    verified_at = serializers.DateTimeField(
        allow_null=True, help_text="When Dify confirmed that it is gone."
    )

    class Meta:
        model = DeletionReceipt
        fields = [
            "id",
            "connection_id",
            "connection_name",
            "kind",
            "name",
            "local_id",
            "remote_id",
            "contained",
            "deleted_at",
            "verified_at",
        ]
        read_only_fields = fields
