from tenants.models.keys import ApiKey
from tenants.models.ledger import LedgerEntry
from tenants.models.people import Membership, User
from tenants.models.quotas import METRICS, WINDOWS, Quota, QuotaWindow
from tenants.models.tenant import Tenant, TenantDataKey
from tenants.models.usage import UsageBucket, UsageWatermark

__all__ = [
    "METRICS",
    "WINDOWS",
    "ApiKey",
    "LedgerEntry",
    "Membership",
    "Quota",
    "QuotaWindow",
    "Tenant",
    "TenantDataKey",
    "UsageBucket",
    "UsageWatermark",
    "User",
]
