"""How connections read on the management API; a key goes in and never comes out."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from knowledge.connections.selectors import licence_needed
from knowledge.connections.services import (
    MOST_KEY_CHARS,
    MOST_NAME_CHARS,
    MOST_ORGANISATION_CHARS,
    MOST_REFERENCE_CHARS,
    MOST_URL_CHARS,
)
from knowledge.models import Connection, DriftPolicy


class CapabilitiesSerializer(serializers.Serializer[Any]):
    """What the workspace can do."""

    high_quality = serializers.BooleanField(help_text="It has a model that embeds knowledge.")
    gateway_provider = serializers.BooleanField(
        help_text="It has the plugin through which it calls the portal's models."
    )
    workspaces = serializers.IntegerField(help_text="How many the instance has.")
    licensed = serializers.BooleanField(help_text="The instance says that it is licensed.")


class ConnectionProblemSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField(help_text="What is wrong, and what to do.")


class ConnectionSerializer(serializers.ModelSerializer[Connection]):
    """A workspace of a Dify; its keys are shown to nobody."""

    shared = serializers.BooleanField(help_text="Other tenants of the organisation work in it too.")
    capabilities = CapabilitiesSerializer()
    problem = serializers.SerializerMethodField()
    licence_needed = serializers.SerializerMethodField(
        help_text="The instance has several workspaces, and no licence for it is confirmed."
    )

    class Meta:
        model = Connection
        fields = [
            "id",
            "name",
            "base_url",
            "workspace_id",
            "workspace_name",
            "drift_policy",
            "shared",
            "organisation",
            "version",
            "capabilities",
            "health",
            "problem",
            "since",
            "checked_at",
            "licence_needed",
            "licence_reference",
            "licence_confirmed_by",
            "licence_confirmed_at",
            "created_at",
        ]
        read_only_fields = fields

    @extend_schema_field(ConnectionProblemSerializer(allow_null=True))
    def get_problem(self, connection: Connection) -> dict[str, str] | None:
        if not connection.problem_code:
            return None
        return {"code": connection.problem_code, "message": connection.problem}

    def get_licence_needed(self, connection: Connection) -> bool:
        return licence_needed(connection)


class NewConnectionSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=MOST_NAME_CHARS)
    base_url = serializers.CharField(max_length=MOST_URL_CHARS)
    workspace_id = serializers.UUIDField()
    console_key = serializers.CharField(max_length=MOST_KEY_CHARS, write_only=True)
    dataset_key = serializers.CharField(max_length=MOST_KEY_CHARS, write_only=True)
    drift_policy = serializers.ChoiceField(DriftPolicy.choices, default=DriftPolicy.ASK)


class EditConnectionSerializer(serializers.Serializer[Any]):
    """What is left out stays as it is."""

    name = serializers.CharField(max_length=MOST_NAME_CHARS, required=False)
    base_url = serializers.CharField(max_length=MOST_URL_CHARS, required=False)
    workspace_id = serializers.UUIDField(required=False)
    console_key = serializers.CharField(max_length=MOST_KEY_CHARS, required=False, write_only=True)
    dataset_key = serializers.CharField(max_length=MOST_KEY_CHARS, required=False, write_only=True)
    drift_policy = serializers.ChoiceField(DriftPolicy.choices, required=False)


class ShareConnectionSerializer(serializers.Serializer[Any]):
    tenant_id = serializers.UUIDField()
    organisation = serializers.CharField(
        max_length=MOST_ORGANISATION_CHARS, help_text="Whose parts both tenants are."
    )


class ConfirmLicenceSerializer(serializers.Serializer[Any]):
    reference = serializers.CharField(
        max_length=MOST_REFERENCE_CHARS, help_text="Such as the number of the agreement."
    )


class NewWorkspaceSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=MOST_NAME_CHARS)
    owner_email = serializers.EmailField(help_text="Of an account of that Dify.")
    inner_key = serializers.CharField(
        max_length=MOST_KEY_CHARS,
        write_only=True,
        help_text="Dify's INNER_API_KEY; it is used this once.",
    )


class WorkspaceSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    status = serializers.CharField()
