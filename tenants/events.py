"""What the tenants app tells the audit trail, and how each event reads."""

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


class TenantsEvent(StrEnum):
    """Names of this app's events; they are stored, so they never change."""

    TENANT_CREATE = "tenant.create"
    TENANT_EDIT = "tenant.edit"
    TENANT_SUSPEND = "tenant.suspend"
    TENANT_RESUME = "tenant.resume"
    TENANT_CLOSE = "tenant.close"
    TENANT_REOPEN = "tenant.reopen"
    TENANT_DELETE = "tenant.delete"
    TENANT_CLOSED = "tenant.closed"
    TENANT_EXPORT = "tenant.export"
    TENANT_EXPORT_MAKE = "tenant.export_make"
    TENANT_EXPORT_FETCH = "tenant.export_fetch"
    TENANT_EXPORT_EXPIRE = "tenant.export_expire"
    TENANT_ENTER = "tenant.enter"
    TENANT_LEAVE = "tenant.leave"
    USER_CREATE = "user.create"
    USER_DEACTIVATE = "user.deactivate"
    USER_REACTIVATE = "user.reactivate"
    USER_SET_ROLE = "user.set_role"
    USER_RESET_PASSWORD = "user.reset_password"  # noqa: S105
    MEMBER_ADD = "member.add"
    MEMBER_CHANGE_ROLE = "member.change_role"
    MEMBER_REMOVE = "member.remove"
    SERVICE_ACCOUNT_CREATE = "service_account.create"
    SERVICE_ACCOUNT_EDIT = "service_account.edit"
    SERVICE_ACCOUNT_DISABLE = "service_account.disable"
    SERVICE_ACCOUNT_ENABLE = "service_account.enable"
    SERVICE_ACCOUNT_RETIRE = "service_account.retire"
    KEY_CREATE = "key.create"
    KEY_CREATE_PLAYGROUND = "key.create_playground"
    KEY_EDIT = "key.edit"
    KEY_ROTATE = "key.rotate"
    KEY_REVOKE = "key.revoke"
    QUOTA_SET = "quota.set"
    QUOTA_DELETE = "quota.delete"
    QUOTA_SET_DEFAULT = "quota.set_default"
    QUOTA_DELETE_DEFAULT = "quota.delete_default"
    QUOTA_WARN = "quota.warn"
    USAGE_EXPORT = "usage.export"
    USAGE_REPAIR = "usage.repair"
    LOG_IN = "auth.log_in"
    LOG_OUT = "auth.log_out"


TEXTS: Final = MappingProxyType[TenantsEvent, str | Promise](
    {
        TenantsEvent.TENANT_CREATE: _("Tenant created"),
        TenantsEvent.TENANT_EDIT: _("Tenant edited"),
        TenantsEvent.TENANT_SUSPEND: _("Tenant suspended"),
        TenantsEvent.TENANT_RESUME: _("Tenant resumed"),
        TenantsEvent.TENANT_CLOSE: _("Tenant's closing decided"),
        TenantsEvent.TENANT_REOPEN: _("Tenant reopened"),
        TenantsEvent.TENANT_DELETE: _("Tenant's deletion begun"),
        TenantsEvent.TENANT_CLOSED: _("Tenant closed"),
        TenantsEvent.TENANT_EXPORT: _("Tenant's export asked for"),
        TenantsEvent.TENANT_EXPORT_MAKE: _("Tenant's export made"),
        TenantsEvent.TENANT_EXPORT_FETCH: _("Tenant's export downloaded"),
        TenantsEvent.TENANT_EXPORT_EXPIRE: _("Tenant's export deleted after its time"),
        TenantsEvent.TENANT_ENTER: _("Tenant entered by an administrator"),
        TenantsEvent.TENANT_LEAVE: _("Tenant left by an administrator"),
        TenantsEvent.USER_CREATE: _("User created"),
        TenantsEvent.USER_DEACTIVATE: _("User deactivated"),
        TenantsEvent.USER_REACTIVATE: _("User reactivated"),
        TenantsEvent.USER_SET_ROLE: _("Platform role set"),
        TenantsEvent.USER_RESET_PASSWORD: _("Password reset"),
        TenantsEvent.MEMBER_ADD: _("Member added"),
        TenantsEvent.MEMBER_CHANGE_ROLE: _("Member's role changed"),
        TenantsEvent.MEMBER_REMOVE: _("Member removed"),
        TenantsEvent.SERVICE_ACCOUNT_CREATE: _("Service account created"),
        TenantsEvent.SERVICE_ACCOUNT_EDIT: _("Service account edited"),
        TenantsEvent.SERVICE_ACCOUNT_DISABLE: _("Service account disabled"),
        TenantsEvent.SERVICE_ACCOUNT_ENABLE: _("Service account enabled"),
        TenantsEvent.SERVICE_ACCOUNT_RETIRE: _("Service account retired"),
        TenantsEvent.KEY_CREATE: _("API key created"),
        TenantsEvent.KEY_CREATE_PLAYGROUND: _("Playground key created"),
        TenantsEvent.KEY_EDIT: _("API key edited"),
        TenantsEvent.KEY_ROTATE: _("API key rotated"),
        TenantsEvent.KEY_REVOKE: _("API key revoked"),
        TenantsEvent.QUOTA_SET: _("Quota set"),
        TenantsEvent.QUOTA_DELETE: _("Quota deleted"),
        TenantsEvent.QUOTA_SET_DEFAULT: _("Default quota set"),
        TenantsEvent.QUOTA_DELETE_DEFAULT: _("Default quota deleted"),
        TenantsEvent.QUOTA_WARN: _("Quota drawn on to a level"),
        TenantsEvent.USAGE_EXPORT: _("Usage exported"),
        TenantsEvent.USAGE_REPAIR: _("Usage rebuilt from the ledger"),
        TenantsEvent.LOG_IN: _("Log-in"),
        TenantsEvent.LOG_OUT: _("Log-out"),
    }
)
