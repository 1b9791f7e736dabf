from tenants.models.keys import ApiKey, ApiKeyUse
from tenants.models.ledger import LedgerEntry
from tenants.models.people import Membership, User
from tenants.models.quotas import METRICS, WINDOWS, Quota, QuotaWindow
from tenants.models.tenant import Tenant, TenantDataKey

__all__ = [
    "METRICS",
    "WINDOWS",
    "ApiKey",
    "ApiKeyUse",
    "LedgerEntry",
    "Membership",
    "Quota",
    "QuotaWindow",
    "Tenant",
    "TenantDataKey",
    "User",
]
