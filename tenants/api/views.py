"""The tenants app on the management API: parse, call one service, render."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from portal.core.actors import TenantRole
from portal.core.api import PortalView
from portal.core.rest import api_context, own_tenant, parse_id
from tenants import querysets, selectors, services
from tenants.api import serializers as shapes
from tenants.models import ApiKey, Membership, Quota
from tenants.permissions import Action


class TenantsView(PortalView):
    """All tenants for an administrator of the platform; one's own for everyone else."""

    actions = {"GET": Action.TENANT_READ, "POST": Action.TENANT_CREATE}

    @extend_schema(operation_id="tenants_list", responses=shapes.TenantSerializer(many=True))
    def get(self, request: Request) -> Response:
        context = api_context(request)
        if context.platform_role is None:
            own_tenant(request)
        with selectors.tenant_list_scope(context):
            return self.page(request, querysets.tenants(), shapes.TenantSerializer)

    @extend_schema(
        operation_id="tenants_create",
        request=shapes.NewTenantSerializer,
        responses={201: shapes.CreatedTenantSerializer},
    )
    def post(self, request: Request) -> Response:
        fields = self.valid(shapes.NewTenantSerializer, request)
        made = services.create_tenant(context=api_context(request), **fields)
        return Response(shapes.CreatedTenantSerializer(made).data, 201)


class TenantView(PortalView):
    """One tenant."""

    actions = {"GET": Action.TENANT_READ, "PATCH": Action.TENANT_EDIT}

    @extend_schema(operation_id="tenants_read", responses=shapes.TenantSerializer)
    def get(self, request: Request, tenant_id: str) -> Response:
        tenant = selectors.get_tenant(api_context(request), parse_id(tenant_id))
        return Response(shapes.TenantSerializer(tenant).data)

    @extend_schema(
        operation_id="tenants_edit",
        request=shapes.TenantChangeSerializer,
        responses=shapes.TenantSerializer,
    )
    def patch(self, request: Request, tenant_id: str) -> Response:
        fields = self.valid(shapes.TenantChangeSerializer, request)
        tenant = services.edit_tenant(
            context=api_context(request), tenant_id=parse_id(tenant_id), **fields
        )
        return Response(shapes.TenantSerializer(tenant).data)


class SuspendTenantView(PortalView):
    """Stops a tenant."""

    actions = {"POST": Action.TENANT_SUSPEND}

    @extend_schema(
        operation_id="tenants_suspend",
        request=shapes.ReasonSerializer,
        responses=shapes.TenantSerializer,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        fields = self.valid(shapes.ReasonSerializer, request)
        tenant = services.suspend_tenant(
            context=api_context(request), tenant_id=parse_id(tenant_id), **fields
        )
        return Response(shapes.TenantSerializer(tenant).data)


class ResumeTenantView(PortalView):
    """Lets a suspended tenant work again."""

    actions = {"POST": Action.TENANT_SUSPEND}

    @extend_schema(
        operation_id="tenants_resume",
        request=shapes.ReasonSerializer,
        responses=shapes.TenantSerializer,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        fields = self.valid(shapes.ReasonSerializer, request)
        tenant = services.resume_tenant(
            context=api_context(request), tenant_id=parse_id(tenant_id), **fields
        )
        return Response(shapes.TenantSerializer(tenant).data)


class MembersView(PortalView):
    """The tenant's members."""

    actions = {"GET": Action.MEMBER_READ, "POST": Action.MEMBER_MANAGE}

    @extend_schema(operation_id="members_list", responses=shapes.MemberSerializer(many=True))
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, querysets.members(), shapes.MemberSerializer)

    @extend_schema(
        operation_id="members_add",
        request=shapes.NewMemberSerializer,
        responses={201: shapes.AddedMemberSerializer},
    )
    def post(self, request: Request) -> Response:
        fields = self.valid(shapes.NewMemberSerializer, request)
        fields["role"] = TenantRole(fields["role"])
        added = services.add_member(context=api_context(request), **fields)
        return Response(shapes.AddedMemberSerializer(added).data, 201)


class MemberView(PortalView):
    """One member."""

    actions = {
        "GET": Action.MEMBER_READ,
        "PATCH": Action.MEMBER_MANAGE,
        "DELETE": Action.MEMBER_MANAGE,
    }

    @extend_schema(operation_id="members_read", responses=shapes.MemberSerializer)
    def get(self, request: Request, member_id: str) -> Response:
        own_tenant(request)
        return Response(shapes.MemberSerializer(_member(member_id)).data)

    @extend_schema(
        operation_id="members_change_role",
        request=shapes.RoleSerializer,
        responses=shapes.MemberSerializer,
    )
    def patch(self, request: Request, member_id: str) -> Response:
        fields = self.valid(shapes.RoleSerializer, request)
        member = services.change_member_role(
            context=api_context(request),
            membership_id=parse_id(member_id),
            role=TenantRole(fields["role"]),
        )
        return Response(shapes.MemberSerializer(member).data)

    @extend_schema(operation_id="members_remove", responses={204: None})
    def delete(self, request: Request, member_id: str) -> Response:
        services.remove_member(context=api_context(request), membership_id=parse_id(member_id))
        return Response(status=204)


def _member(member_id: str) -> Membership:
    found = querysets.members().filter(pk=parse_id(member_id))
    return selectors.one(found, "There is no such member.")


class KeysView(PortalView):
    """The tenant's API keys."""

    actions = {"GET": Action.KEY_READ, "POST": Action.KEY_CREATE}

    @extend_schema(operation_id="keys_list", responses=shapes.KeySerializer(many=True))
    def get(self, request: Request) -> Response:
        own_tenant(request)
        return self.page(request, querysets.keys(), shapes.KeySerializer)

    @extend_schema(
        operation_id="keys_create",
        request=shapes.NewKeySerializer,
        responses={201: shapes.CreatedKeySerializer},
    )
    def post(self, request: Request) -> Response:
        fields = self.valid(shapes.NewKeySerializer, request)
        made = services.create_api_key(context=api_context(request), **fields)
        return Response(shapes.CreatedKeySerializer(made).data, 201)


class KeyView(PortalView):
    """One API key."""

    actions = {"GET": Action.KEY_READ, "PATCH": (Action.KEY_EDIT, Action.KEY_EDIT_OWN)}

    @extend_schema(operation_id="keys_read", responses=shapes.KeySerializer)
    def get(self, request: Request, key_id: str) -> Response:
        own_tenant(request)
        return Response(shapes.KeySerializer(_key(key_id)).data)

    @extend_schema(
        operation_id="keys_edit",
        request=shapes.KeyChangeSerializer,
        responses=shapes.KeySerializer,
    )
    def patch(self, request: Request, key_id: str) -> Response:
        fields = self.valid(shapes.KeyChangeSerializer, request)
        key = services.edit_api_key(
            context=api_context(request), api_key_id=parse_id(key_id), **fields
        )
        return Response(shapes.KeySerializer(key).data)


class RotateKeyView(PortalView):
    """Gives an API key a new secret; the former one works on for the overlap."""

    actions = {"POST": (Action.KEY_EDIT, Action.KEY_EDIT_OWN)}

    @extend_schema(
        operation_id="keys_rotate",
        request=shapes.RotationSerializer,
        responses=shapes.CreatedKeySerializer,
    )
    def post(self, request: Request, key_id: str) -> Response:
        fields = self.valid(shapes.RotationSerializer, request)
        rotated = services.rotate_api_key(
            context=api_context(request), api_key_id=parse_id(key_id), **fields
        )
        return Response(shapes.CreatedKeySerializer(rotated).data)


class RevokeKeyView(PortalView):
    """Ends an API key."""

    actions = {"POST": (Action.KEY_REVOKE, Action.KEY_REVOKE_OWN)}

    @extend_schema(
        operation_id="keys_revoke",
        request=shapes.ReasonSerializer,
        responses=shapes.KeySerializer,
    )
    def post(self, request: Request, key_id: str) -> Response:
        fields = self.valid(shapes.ReasonSerializer, request)
        key = services.revoke_api_key(
            context=api_context(request), api_key_id=parse_id(key_id), **fields
        )
        return Response(shapes.KeySerializer(key).data)


def _key(key_id: str) -> ApiKey:
    return selectors.one(querysets.keys().filter(pk=parse_id(key_id)), "There is no such API key.")


class QuotasView(PortalView):
    """The tenant's quotas and what is drawn on them."""

    actions = {"GET": Action.QUOTA_READ, "PUT": (Action.QUOTA_EDIT, Action.QUOTA_EDIT_TENANT)}

    @extend_schema(operation_id="quotas_list", responses=shapes.QuotaSerializer(many=True))
    def get(self, request: Request) -> Response:
        tenant_id = own_tenant(request)
        defaults = selectors.quota_defaults(tenant_id)
        return self.page(
            request,
            querysets.quotas(tenant_id),
            shapes.QuotaSerializer,
            lambda rows: [selectors.quota_use(quota, defaults=defaults) for quota in rows],
        )

    @extend_schema(
        operation_id="quotas_set",
        request=shapes.QuotaChangeSerializer,
        responses=shapes.QuotaSerializer,
    )
    def put(self, request: Request) -> Response:
        fields = self.valid(shapes.QuotaChangeSerializer, request)
        quota = services.set_quota(context=api_context(request), **fields)
        return _quota_shown(quota)


class QuotaView(PortalView):
    """One quota of the tenant."""

    actions = {
        "GET": Action.QUOTA_READ,
        "PATCH": (Action.QUOTA_EDIT, Action.QUOTA_EDIT_TENANT),
        "DELETE": (Action.QUOTA_EDIT, Action.QUOTA_EDIT_TENANT),
    }

    @extend_schema(operation_id="quotas_read", responses=shapes.QuotaSerializer)
    def get(self, request: Request, quota_id: str) -> Response:
        return _quota_shown(_quota(request, quota_id))

    @extend_schema(
        operation_id="quotas_edit",
        request=shapes.LimitsSerializer,
        responses=shapes.QuotaSerializer,
    )
    def patch(self, request: Request, quota_id: str) -> Response:
        limits = self.valid(shapes.LimitsSerializer, request)
        quota = _quota(request, quota_id)
        changed = services.set_quota(
            context=api_context(request),
            user_id=quota.user_id,
            api_key_id=quota.api_key_id,
            model_id=quota.model_id,
            **limits,
        )
        return _quota_shown(changed)

    @extend_schema(operation_id="quotas_delete", responses={204: None})
    def delete(self, request: Request, quota_id: str) -> Response:
        own_tenant(request)
        services.delete_quota(context=api_context(request), quota_id=parse_id(quota_id))
        return Response(status=204)


def _quota_shown(quota: Quota) -> Response:
    # A quota of a whole tenant is shown to administrators outside of it; it follows none.
    defaults = {} if quota.followed is None else selectors.quota_defaults(quota.tenant_id)
    return Response(shapes.QuotaSerializer(selectors.quota_use(quota, defaults=defaults)).data)


def _quota(request: Request, quota_id: str) -> Quota:
    found = querysets.quotas(own_tenant(request)).filter(pk=parse_id(quota_id))
    return selectors.one(found, "There is no such quota.")
