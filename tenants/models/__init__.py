from tenants.models.closing import (
    ClosureStep,
    TenantCertificate,
    TenantClosure,
    TenantExport,
)
from tenants.models.keys import ApiKey, ApiKeyUse
from tenants.models.ledger import LedgerEntry
from tenants.models.people import Membership, User
from tenants.models.quotas import (
    LEVELS,
    LIMITS,
    METRICS,
    WARNED_WINDOWS,
    WINDOWS,
    Quota,
    QuotaDefault,
    QuotaWarning,
    QuotaWindow,
)
from tenants.models.service_accounts import ServiceAccount
from tenants.models.tenant import Tenant, TenantDataKey
from tenants.models.usage import UsageBucket, UsageWatermark

__all__ = [
    "LEVELS",
    "LIMITS",
    "METRICS",
    "WARNED_WINDOWS",
    "WINDOWS",
    "ApiKey",
    "ApiKeyUse",
    "ClosureStep",
    "LedgerEntry",
    "Membership",
    "Quota",
    "QuotaDefault",
    "QuotaWarning",
    "QuotaWindow",
    "ServiceAccount",
    "Tenant",
    "TenantCertificate",
    "TenantClosure",
    "TenantDataKey",
    "TenantExport",
    "UsageBucket",
    "UsageWatermark",
    "User",
]
