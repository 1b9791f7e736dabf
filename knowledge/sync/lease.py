"""The lease of a runner: one at a time works on a connection, and every write of it says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.utils import timezone

from knowledge.models import Sync
from portal.core.actors import Context
from portal.core.tenancy import tenant_scope

LEASE: Final = timedelta(seconds=90)
"""Longer than a call to Dify may take."""


class LostLease(Exception):
    """Another runner holds the connection, or it is gone: this one has nothing to say any more."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a runner holds.

    Attributes:
        fence: its number; a later runner of the connection has a higher one.
    """

    tenant_id: UUID
    connection_id: UUID
    fence: int

    @property
    def context(self) -> Context:
        return Context.system("sync", tenant_id=self.tenant_id)

    @contextmanager
    def scope(self) -> Iterator[Sync]:
        """The tenant's scope, with the lease renewed and held until it commits.

        Raises:
            LostLease: another runner has it.
        """
        with tenant_scope(self.context):
            held = Sync.objects.filter(
                tenant_id=self.tenant_id, connection_id=self.connection_id, fence=self.fence
            )
            if not held.update(lease_until=timezone.now() + LEASE):
                raise LostLease
            yield held.get()
