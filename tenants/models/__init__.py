from tenants.models.keys import ApiKey, ApiKeyUse
from tenants.models.ledger import LedgerEntry
from tenants.models.people import Membership, User
from tenants.models.quotas import (
    LEVELS,
    METRICS,
    WARNED_WINDOWS,
    WINDOWS,
    Quota,
    QuotaWarning,
    QuotaWindow,
)
from tenants.models.service_accounts import ServiceAccount
from tenants.models.tenant import Tenant, TenantDataKey
from tenants.models.usage import UsageBucket, UsageWatermark

__all__ = [
    "LEVELS",
    "METRICS",
    "WARNED_WINDOWS",
    "WINDOWS",
    "ApiKey",
    "ApiKeyUse",
    "LedgerEntry",
    "Membership",
    "Quota",
    "QuotaWarning",
    "QuotaWindow",
    "ServiceAccount",
    "Tenant",
    "TenantDataKey",
    "UsageBucket",
    "UsageWatermark",
    "User",
]
