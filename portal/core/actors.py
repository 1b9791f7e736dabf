"""Who acts: the names of actor types and roles, and the context that every change carries."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

NIL_TENANT = UUID(int=0)
"""The tenant of platform events and of strangers that were refused."""


class ActorType(StrEnum):
    """What kind of caller an audit event names."""

    USER = "user"
    API_KEY = "api_key"
    SYSTEM = "system"
    ANONYMOUS = "anonymous"


class PlatformRole(StrEnum):
    """The three administrators; one account is never two of them."""

    SYSTEM = "system"
    SECURITY = "security"
    AUDIT = "audit"


class TenantRole(StrEnum):
    """What a member may be inside one tenant."""

    OWNER = "owner"
    DEVELOPER = "developer"
    VIEWER = "viewer"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Actor:
    """The party that acts; ``label`` is a snapshot that survives the party."""

    type: ActorType
    id: UUID | None
    label: str


SYSTEM = Actor(ActorType.SYSTEM, None, "system")
ANONYMOUS = Actor(ActorType.ANONYMOUS, None, "anonymous")


@dataclass(frozen=True, slots=True)
class Context:
    """Who calls, for which tenant, by what means and from where.

    Passed explicitly from the edge of the system into every scope and service. A session's
    tenant is ``tenant_read_only`` while it is closing and ever after.
    """

    actor: Actor
    tenant_id: UUID | None = None
    user_id: UUID | None = None
    api_key_id: UUID | None = None
    auth_method: str = ""
    on_behalf_of: UUID | None = None
    address: str | None = None
    request_id: str = ""
    client_request_id: str | None = None
    platform_role: PlatformRole | None = None
    tenant_role: TenantRole | None = None
    tenant_read_only: bool = False
    scopes: frozenset[str] = frozenset()

    @classmethod
    def system(cls, label: str, *, tenant_id: UUID | None = None) -> "Context":
        """The context of the product's own work, such as a scheduled task."""
        return cls(
            actor=Actor(ActorType.SYSTEM, None, label), tenant_id=tenant_id, auth_method="internal"
        )
