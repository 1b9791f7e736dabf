"""Tenancy that cannot be forgotten: scopes, the guard, and the migration operations."""

from portal.core.tenancy.scopes import (
    CrossTenantScope,
    bare_scope,
    current_context,
    platform_scope,
    role_scope,
    run_in_tenant,
    tenant_scope,
    user_scope,
)

__all__ = [
    "CrossTenantScope",
    "bare_scope",
    "current_context",
    "platform_scope",
    "role_scope",
    "run_in_tenant",
    "tenant_scope",
    "user_scope",
]
