"""People on the management API: all accounts for administrators, members' for their tenant."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from portal.core.actors import PlatformRole
from portal.core.api import PortalView
from portal.core.rest import api_context, own_tenant, parse_id
from tenants import querysets, selectors, services
from tenants.api.serializers import ROLES, ReasonSerializer
from tenants.models import Membership, User
from tenants.permissions import Action

PLATFORM_ROLES = [role.value for role in PlatformRole]
_MOST_EMAIL_CHARS = 254


class UserSerializer(serializers.ModelSerializer[User]):
    """An account."""

    active = serializers.BooleanField(source="is_active")

    class Meta:
        model = User
        fields = ["id", "email", "full_name", "active"]
        read_only_fields = fields


class UserMembershipSerializer(serializers.ModelSerializer[Membership]):
    tenant_id = serializers.UUIDField()
    tenant = serializers.CharField(source="tenant.name")
    role = serializers.ChoiceField(ROLES)

    class Meta:
        model = Membership
        fields = ["id", "tenant_id", "tenant", "role", "created_at"]
        read_only_fields = fields


class AccountSerializer(serializers.Serializer[selectors.Account]):
    """An account with its memberships: all of them for an administrator of the platform, who is
    told its last three fields, too; else the one in the caller's tenant."""

    id = serializers.UUIDField(source="user.id")
    email = serializers.CharField(source="user.email")
    full_name = serializers.CharField(source="user.full_name")
    active = serializers.BooleanField(source="user.is_active")
    memberships = UserMembershipSerializer(many=True)
    platform_role = serializers.ChoiceField(
        PLATFORM_ROLES, source="user.platform_role", allow_null=True
    )
    last_login = serializers.DateTimeField(source="user.last_login", allow_null=True)
    created_at = serializers.DateTimeField(source="user.created_at", allow_null=True)

    def to_representation(self, instance: selectors.Account) -> dict[str, Any]:
        shown = super().to_representation(instance)
        if not self.context["every_user"]:
            # They tell of the person's life outside the tenant.
            shown |= dict.fromkeys(("platform_role", "last_login", "created_at"))
        return shown


class NewUserSerializer(serializers.Serializer[Any]):
    email = serializers.CharField(max_length=_MOST_EMAIL_CHARS)
    full_name = serializers.CharField(max_length=120, default="", allow_blank=True)
    platform_role = serializers.ChoiceField(
        PLATFORM_ROLES,
        required=False,
        allow_null=True,
        help_text="The security administrator's to give.",
    )


class PlatformRoleSerializer(serializers.Serializer[Any]):
    platform_role = serializers.ChoiceField(
        PLATFORM_ROLES, allow_null=True, help_text="Null takes the role away."
    )


class UserPasswordSerializer(serializers.Serializer[Any]):
    """An account and its new password, which is shown this once."""

    user = UserSerializer()
    password = serializers.CharField()


def _account(request: Request, user_id: str) -> dict[str, Any]:
    context = api_context(request)
    account = selectors.get_account(context, parse_id(user_id))
    every_user = selectors.sees_every_user(context)
    return dict(AccountSerializer(account, context={"every_user": every_user}).data)


def _platform_role(value: str | None) -> PlatformRole | None:
    return None if value is None else PlatformRole(value)


class UsersView(PortalView):
    """All accounts for an administrator of the platform; those of the tenant's members else."""

    actions = {"GET": (Action.USER_READ, Action.MEMBER_READ), "POST": Action.USER_CREATE}

    @extend_schema(
        operation_id="users_list",
        parameters=[
            OpenApiParameter("email", str, description="Only the account of that address.")
        ],
        responses=UserSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        of_tenant = not selectors.sees_every_user(api_context(request))
        if of_tenant:
            own_tenant(request)
        found = querysets.users(of_tenant=of_tenant)
        email = request.query_params.get("email")
        if email is not None:
            found = found.filter(email__iexact=email[:_MOST_EMAIL_CHARS])
        return self.page(request, found, UserSerializer)

    @extend_schema(
        operation_id="users_create",
        request=NewUserSerializer,
        responses={201: UserPasswordSerializer},
    )
    def post(self, request: Request) -> Response:
        fields = self.valid(NewUserSerializer, request)
        fields["platform_role"] = _platform_role(fields.get("platform_role"))
        made = services.create_user(context=api_context(request), **fields)
        return Response(UserPasswordSerializer(made).data, 201)


class UserView(PortalView):
    """One account."""

    actions = {
        "GET": (Action.USER_READ, Action.MEMBER_READ),
        "PATCH": Action.USER_SET_ROLE,
    }

    @extend_schema(operation_id="users_read", responses=AccountSerializer)
    def get(self, request: Request, user_id: str) -> Response:
        return Response(_account(request, user_id))

    @extend_schema(
        operation_id="users_set_platform_role",
        request=PlatformRoleSerializer,
        responses=AccountSerializer,
    )
    def patch(self, request: Request, user_id: str) -> Response:
        fields = self.valid(PlatformRoleSerializer, request)
        services.set_platform_role(
            context=api_context(request),
            user_id=parse_id(user_id),
            platform_role=_platform_role(fields["platform_role"]),
        )
        return Response(_account(request, user_id))


class DeactivateUserView(PortalView):
    """Shuts an account out."""

    actions = {"POST": Action.USER_DEACTIVATE}

    @extend_schema(
        operation_id="users_deactivate", request=ReasonSerializer, responses=UserSerializer
    )
    def post(self, request: Request, user_id: str) -> Response:
        fields = self.valid(ReasonSerializer, request)
        user = services.deactivate_user(
            context=api_context(request), user_id=parse_id(user_id), **fields
        )
        return Response(UserSerializer(user).data)


class ReactivateUserView(PortalView):
    """Lets an account in again."""

    actions = {"POST": Action.USER_DEACTIVATE}

    @extend_schema(
        operation_id="users_reactivate", request=ReasonSerializer, responses=UserSerializer
    )
    def post(self, request: Request, user_id: str) -> Response:
        fields = self.valid(ReasonSerializer, request)
        user = services.reactivate_user(
            context=api_context(request), user_id=parse_id(user_id), **fields
        )
        return Response(UserSerializer(user).data)


class ResetPasswordView(PortalView):
    """Gives an account a new password, which ends its sessions."""

    actions = {"POST": Action.USER_RESET_PASSWORD}

    @extend_schema(
        operation_id="users_reset_password", request=None, responses=UserPasswordSerializer
    )
    def post(self, request: Request, user_id: str) -> Response:
        renewed = services.reset_password(context=api_context(request), user_id=parse_id(user_id))
        return Response(UserPasswordSerializer(renewed).data)
