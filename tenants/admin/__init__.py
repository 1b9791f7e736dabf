"""Admin pages of tenants, users, members, keys and quotas."""

from tenants.admin.keys import ApiKeyAdmin
from tenants.admin.members import MembershipAdmin
from tenants.admin.quotas import QuotaAdmin
from tenants.admin.tenants import TenantAdmin
from tenants.admin.users import UserAdmin

__all__ = ["ApiKeyAdmin", "MembershipAdmin", "QuotaAdmin", "TenantAdmin", "UserAdmin"]
