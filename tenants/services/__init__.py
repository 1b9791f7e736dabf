"""Verbs of the tenants app: keyword-only, permission first, one transaction, audited."""

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
    create_playground_key,
    revoke_api_key,
    revoke_session_keys,
)
from tenants.services.members import (
    AddedMember,
    add_member,
    change_member_role,
    remove_member,
)
from tenants.services.quotas import LIMITS, delete_quota, set_quota
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
    "create_playground_key",
    "create_tenant",
    "create_user",
    "deactivate_user",
    "delete_quota",
    "edit_api_key",
    "edit_tenant",
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
    "revoke_api_key",
    "revoke_session_keys",
    "roll_up_usage",
    "rotate_api_key",
    "set_platform_role",
    "set_quota",
    "suspend_tenant",
    "verify_certificate",
]
