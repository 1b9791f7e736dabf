"""Verbs of the tenants app: keyword-only, permission first, one transaction, audited."""

from tenants.models import LIMITS
from tenants.services.closing import (
    close_tenant,
    find_certificate,
    reopen_tenant,
    verify_certificate,
)
from tenants.services.exports import newest_export, open_export, request_export
from tenants.services.key_changes import edit_api_key, rotate_api_key
from tenants.services.keys import (
    CreatedKey,
    create_api_key,
    create_connected_key,
    create_playground_key,
    create_portal_key,
    revoke_api_key,
    revoke_session_keys,
)
from tenants.services.members import (
    AddedMember,
    add_member,
    change_member_role,
    remove_member,
)
from tenants.services.quota_defaults import delete_quota_default, set_quota_default
from tenants.services.quotas import delete_quota, set_quota
from tenants.services.service_accounts import (
    create_service_account,
    disable_service_account,
    edit_service_account,
    enable_service_account,
    retire_service_account,
)
from tenants.services.tenants import (
    CreatedTenant,
    create_tenant,
    edit_tenant,
    resume_tenant,
    suspend_tenant,
)
from tenants.services.usage import check_usage, export_usage, repair_usage, roll_up_usage
from tenants.services.users import (
    CreatedUser,
    create_user,
    deactivate_user,
    reactivate_user,
    reset_password,
    set_platform_role,
)

__all__ = [
    "LIMITS",
    "AddedMember",
    "CreatedKey",
    "CreatedTenant",
    "CreatedUser",
    "add_member",
    "change_member_role",
    "check_usage",
    "close_tenant",
    "create_api_key",
    "create_connected_key",
    "create_playground_key",
    "create_portal_key",
    "create_service_account",
    "create_tenant",
    "create_user",
    "deactivate_user",
    "delete_quota",
    "delete_quota_default",
    "disable_service_account",
    "edit_api_key",
    "edit_service_account",
    "edit_tenant",
    "enable_service_account",
    "export_usage",
    "find_certificate",
    "newest_export",
    "open_export",
    "reactivate_user",
    "remove_member",
    "reopen_tenant",
    "repair_usage",
    "request_export",
    "reset_password",
    "resume_tenant",
    "retire_service_account",
    "revoke_api_key",
    "revoke_session_keys",
    "roll_up_usage",
    "rotate_api_key",
    "set_platform_role",
    "set_quota",
    "set_quota_default",
    "suspend_tenant",
    "verify_certificate",
]
