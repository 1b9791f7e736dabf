"""The database roles, by name; every policy and grant names one of these."""

from dataclasses import dataclass
from typing import Self

from portal.core.env import env


@dataclass(frozen=True, slots=True)
class DatabaseRoles:
    """Role names of one installation.

    ``app``, ``gateway``, ``sealer`` and ``owner`` log in. ``platform``, ``audit_reader`` and
    ``audit_reader_all`` are entered by ``SET LOCAL ROLE`` for one transaction.
    ``audit_writer`` owns the row triggers and is entered by nobody.
    """

    app: str
    gateway: str
    sealer: str
    owner: str
    platform: str
    audit_reader: str
    audit_reader_all: str
    audit_writer: str

    @classmethod
    def with_prefix(cls, prefix: str) -> Self:
        return cls(
            app=f"{prefix}portal_app",
            gateway=f"{prefix}portal_gateway",
            sealer=f"{prefix}portal_sealer",
            owner=f"{prefix}portal_owner",
            platform=f"{prefix}portal_platform",
            audit_reader=f"{prefix}audit_reader",
            audit_reader_all=f"{prefix}audit_reader_all",
            audit_writer=f"{prefix}audit_writer",
        )

    @property
    def serving(self) -> tuple[str, ...]:
        """Login roles that serve requests and must be bound by row-level security."""
        return (self.app, self.gateway, self.sealer)

    @property
    def entered(self) -> tuple[str, ...]:
        """Roles that ``app`` may enter for one transaction."""
        return (self.platform, self.audit_reader, self.audit_reader_all)


def database_roles() -> DatabaseRoles:
    """The role names of this installation."""
    return DatabaseRoles.with_prefix(env().database_role_prefix)
