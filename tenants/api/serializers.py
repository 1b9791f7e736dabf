"""How the tenants app's objects read and are written on the management API."""

from typing import Any

from rest_framework import serializers

from portal.core.actors import TenantRole
from tenants.models import ApiKey, ApiKeyUse, Membership, QuotaWarning, Tenant
from tenants.permissions import Scope
from tenants.selectors import QuotaUse
from tenants.services import LIMITS
from tenants.services.checks import MOST_NETWORKS
from tenants.services.key_changes import DEFAULT_OVERLAP_SECONDS, MOST_OVERLAP_SECONDS

ROLES = [role.value for role in TenantRole]
SCOPES = [scope.value for scope in Scope]


class TenantSerializer(serializers.ModelSerializer[Tenant]):
    class Meta:
        model = Tenant
        fields = ["id", "name", "slug", "state", "time_zone", "weight", "created_at"]
        read_only_fields = fields


class NewTenantSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120)
    slug = serializers.CharField(max_length=60)
    time_zone = serializers.CharField(max_length=64, default="UTC")
    owner_email = serializers.CharField(max_length=254)
    owner_name = serializers.CharField(max_length=120, default="", allow_blank=True)


class OwnerSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    email = serializers.CharField()


class CreatedTenantSerializer(serializers.Serializer[Any]):
    """A new tenant; ``password`` is the owner's first, shown once, null for an old account."""

    tenant = TenantSerializer()
    owner = OwnerSerializer()
    password = serializers.CharField(allow_null=True)


class TenantChangeSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120, required=False)
    time_zone = serializers.CharField(max_length=64, required=False)
    weight = serializers.IntegerField(min_value=1, max_value=100, required=False)


class ReasonSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=200)


class MemberSerializer(serializers.ModelSerializer[Membership]):
    user_id = serializers.UUIDField()
    email = serializers.CharField(source="user.email")
    full_name = serializers.CharField(source="user.full_name")
    active = serializers.BooleanField(source="user.is_active")
    role = serializers.ChoiceField(ROLES)

    class Meta:
        model = Membership
        fields = ["id", "user_id", "email", "full_name", "active", "role", "created_at"]
        read_only_fields = fields


class NewMemberSerializer(serializers.Serializer[Any]):
    email = serializers.CharField(max_length=254)
    role = serializers.ChoiceField(ROLES)
    full_name = serializers.CharField(max_length=120, default="", allow_blank=True)


class AddedMemberSerializer(serializers.Serializer[Any]):
    """A new member; ``password`` is the account's first, shown once, null for an old account."""

    member = MemberSerializer(source="membership")
    password = serializers.CharField(allow_null=True)


class RoleSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(ROLES)


class KeyUseSerializer(serializers.ModelSerializer[ApiKeyUse]):
    class Meta:
        model = ApiKeyUse
        fields = ["generation", "last_used_at"]
        read_only_fields = fields


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    user_id = serializers.UUIDField()
    made_by = serializers.CharField(
        source="user.label", help_text="A person's e-mail address, or a service account's name."
    )
    service_account_id = serializers.UUIDField(
        source="user.service_id", allow_null=True, help_text="Whose key it is, if no person's."
    )
    scopes = serializers.ListField(child=serializers.ChoiceField(SCOPES))
    allowed_models = serializers.ListField(child=serializers.CharField(), allow_null=True)
    allowed_networks = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="Null means from anywhere."
    )
    generation = serializers.IntegerField(help_text="Of the secret; a rotation raises it by one.")
    former_until = serializers.DateTimeField(
        allow_null=True, help_text="Until when the generation before this one works."
    )
    last_used_at = serializers.DateTimeField(
        allow_null=True, help_text="The last use of any generation, to within seconds."
    )
    uses = KeyUseSerializer(many=True, help_text="The last use of each generation.")

    class Meta:
        model = ApiKey
        fields = [
            "id",
            "name",
            "public_id",
            "user_id",
            "made_by",
            "service_account_id",
            "scopes",
            "allowed_models",
            "allowed_networks",
            "generation",
            "former_until",
            "last_used_at",
            "uses",
            "expires_at",
            "revoked_at",
            "revoked_reason",
            "created_at",
        ]
        read_only_fields = fields


def _networks(*, required: bool) -> serializers.ListField:
    return serializers.ListField(
        child=serializers.CharField(max_length=64),
        required=required,
        allow_null=True,
        max_length=MOST_NETWORKS,
        help_text="Networks in CIDR notation; empty or null means from anywhere.",
    )


class NewKeySerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(SCOPES), min_length=1, max_length=len(SCOPES)
    )
    allowed_models = serializers.ListField(
        child=serializers.CharField(max_length=80),
        required=False,
        allow_null=True,
        max_length=100,
        help_text="Names of models; empty or null means every model.",
    )
    allowed_networks = _networks(required=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    service_account_id = serializers.UUIDField(
        required=False, allow_null=True, help_text="Whose key it is to be; absent: the caller's."
    )


class KeyChangeSerializer(serializers.Serializer[Any]):
    allowed_networks = _networks(required=True)


class RotationSerializer(serializers.Serializer[Any]):
    overlap_seconds = serializers.IntegerField(
        min_value=0,
        max_value=MOST_OVERLAP_SECONDS,
        default=DEFAULT_OVERLAP_SECONDS,
        help_text="How long the former secret goes on working; 0 ends it at once.",
    )


class CreatedKeySerializer(serializers.Serializer[Any]):
    """A new or rotated key and its token, which is shown this once."""

    key = KeySerializer(source="api_key")
    token = serializers.CharField()


class WarningSerializer(serializers.ModelSerializer[QuotaWarning]):
    class Meta:
        model = QuotaWarning
        fields = ["level", "maximum", "taken", "warned_at"]
        read_only_fields = fields


class UseSerializer(serializers.Serializer[Any]):
    name = serializers.ChoiceField(list(LIMITS))
    limit = serializers.IntegerField(allow_null=True, help_text="Null means no limit.")
    used = serializers.IntegerField(help_text="Charged and reserved in the present window.")
    held = serializers.IntegerField(help_text="What of it is reserved by generations under way.")
    resets_at = serializers.DateTimeField(
        allow_null=True, help_text="When the present window ends; null for what never does."
    )
    level = serializers.IntegerField(
        allow_null=True, help_text="The highest of 50, 80 and 100 percent that is reached now."
    )
    warnings = WarningSerializer(many=True, help_text="Of the present window, by level.")
    origin = serializers.ChoiceField(
        ["own", "default"],
        allow_null=True,
        help_text="Where the limit comes from: set for this quota, or from the default.",
    )
    default_limit = serializers.IntegerField(
        allow_null=True, help_text="What the default says; where `origin` is `own`, overridden."
    )


class QuotaSerializer(serializers.Serializer[QuotaUse]):
    id = serializers.UUIDField(source="quota.id")
    user_id = serializers.UUIDField(source="quota.user_id", allow_null=True)
    api_key_id = serializers.UUIDField(source="quota.api_key_id", allow_null=True)
    model_id = serializers.UUIDField(source="quota.model_id", allow_null=True)
    limits = UseSerializer(source="uses", many=True)


def _limit(name: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        required=False, allow_null=True, min_value=0, max_value=2**63 - 1, label=name
    )


class LimitsSerializer(serializers.Serializer[Any]):
    """Limits. One that is absent stays as it is; null takes it away."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {**super().get_fields(), **{name: _limit(name) for name in LIMITS}}


class QuotaChangeSerializer(LimitsSerializer):
    """Limits of one scope. One that is absent stays as it is; null takes it away."""

    tenant_id = serializers.UUIDField(required=False, allow_null=True)
    user_id = serializers.UUIDField(required=False, allow_null=True)
    api_key_id = serializers.UUIDField(required=False, allow_null=True)
    model_id = serializers.UUIDField(required=False, allow_null=True)
