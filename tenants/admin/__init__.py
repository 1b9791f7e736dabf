"""Admin pages of tenants, users, members, keys, quotas, usage and exports."""

from tenants.admin.exports import TenantExportAdmin
from tenants.admin.keys import ApiKeyAdmin
from tenants.admin.members import MembershipAdmin
from tenants.admin.quota_defaults import QuotaDefaultAdmin
from tenants.admin.quotas import QuotaAdmin
from tenants.admin.service_accounts import ServiceAccountAdmin
from tenants.admin.tenants import TenantAdmin
from tenants.admin.usage_pages import UsageAdmin
from tenants.admin.users import UserAdmin

__all__ = [
    "ApiKeyAdmin",
    "MembershipAdmin",
    "QuotaAdmin",
    "QuotaDefaultAdmin",
    "ServiceAccountAdmin",
    "TenantAdmin",
    "TenantExportAdmin",
    "UsageAdmin",
    "UserAdmin",
]
