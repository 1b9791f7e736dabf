"""An io worker's turns at rows that are due: in each process a few at a time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from django.db import DatabaseError, models
from django.utils import timezone

from portal.core.actors import Context
from portal.core.tenancy import tenant_scope

log = structlog.get_logger(__name__)

# The clock rings every second; a turn leaves the worker's threads to other work in between.
_SECONDS: Final = 0.8
_AFTER_FAULT_SECONDS: Final = 10.0

Step = Callable[[UUID, UUID], bool]


@dataclass(frozen=True, slots=True)
class Work:
    """Rows that are due, and what is done with one.

    Attributes:
        name: what the work is called in the log and in the database.
        due: tenant and id of up to a hundred rows that are due. The control plane, who takes the
            steps, sees one tenant alone, and does not know before which.
        step: takes a row's step, given tenant and id; whether there was one.
        model: whose rows they are.
        column: when a row is due; None once it is not any more.
    """

    name: str
    due: str
    step: Step
    model: type[models.Model]
    column: str = "wake_at"


class Turns:
    """Takes steps of one kind of work, on connections that see the due of all tenants.

    Args:
        database_url: of ``portal_gateway``.
        slots: so many turns are taken at once in this process.
    """

    def __init__(self, database_url: str, work: Work, *, slots: int = 1) -> None:
        self._database_url = database_url
        self._work = work
        self._slots = threading.Semaphore(slots)
        # Kept open: logging in every second costs more than a look.
        self._idle: list[psycopg.Connection[Any]] = []

    def take(self, *, seconds: float = _SECONDS) -> int:
        """One turn, unless all slots are taken; how many steps it took.

        Raises:
            psycopg.Error: the database is away; a later turn connects anew.
        """
        if not self._slots.acquire(blocking=False):
            return 0
        try:
            connection = self._connected()
            try:
                taken = self._take(connection, time.monotonic() + seconds)
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return taken
        finally:
            self._slots.release()

    def close(self) -> None:
        """Lets the idle connections go."""
        while self._idle:
            self._idle.pop().close()

    def _connected(self) -> psycopg.Connection[Any]:
        try:
            return self._idle.pop()
        except IndexError:
            return psycopg.connect(
                self._database_url,
                autocommit=True,
                application_name=self._work.name,
                connect_timeout=5,
            )

    def _take(self, connection: psycopg.Connection[Any], until: float) -> int:
        taken = 0
        while True:
            before = taken
            for tenant_id, row_id in connection.execute(self._work.due.encode()).fetchall():
                if time.monotonic() >= until:
                    return taken
                taken += self._one(tenant_id, row_id)
            if taken == before:
                return taken

    def _one(self, tenant_id: UUID, row_id: UUID) -> bool:
        try:
            return self._work.step(tenant_id, row_id)
        except DatabaseError as fault:
            # One whose step fails again and again must not hold up the others.
            log.error(
                "step.failed", work=self._work.name, row_id=str(row_id), error=type(fault).__name__
            )
            self._put_off(tenant_id, row_id)
            return True

    def _put_off(self, tenant_id: UUID, row_id: UUID) -> None:
        later = timezone.now() + timedelta(seconds=_AFTER_FAULT_SECONDS)
        column = self._work.column
        with tenant_scope(Context.system("knowledge", tenant_id=tenant_id)):
            found = self._work.model._default_manager.filter(pk=row_id)
            found.exclude(**{column: None}).update(**{column: later})
