"""An io worker's turns at documents that are due: in each process a few at a time."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from django.db import DatabaseError
from django.utils import timezone

from knowledge.models import Document, DocumentState
from portal.core.actors import Context
from portal.core.tenancy import tenant_scope

log = structlog.get_logger(__name__)

# The clock rings every second; a turn leaves the worker's threads to other work in between.
_SECONDS: Final = 0.8
_AFTER_FAULT_SECONDS: Final = 10.0

# The row's tenant is not known before: the control plane, who takes the steps, sees one alone.
_DUE: Final = """
SELECT tenant_id, id FROM knowledge_document
 WHERE state = %s AND wake_at <= clock_timestamp() ORDER BY wake_at LIMIT 100
"""
Step = Callable[[UUID, UUID], bool]


class Turns:
    """Takes steps of documents in one state, on connections that see the due of all tenants.

    Args:
        database_url: of ``portal_gateway``.
        step: takes a document's step, given tenant and document.
        slots: so many turns are taken at once in this process.
    """

    def __init__(
        self, database_url: str, state: DocumentState, step: Step, *, slots: int = 1
    ) -> None:
        self._database_url = database_url
        self._state = state
        self._step = step
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
                self._database_url, autocommit=True, application_name="documents", connect_timeout=5
            )

    def _take(self, connection: psycopg.Connection[Any], until: float) -> int:
        taken = 0
        while True:
            before = taken
            for tenant_id, document_id in connection.execute(_DUE, [self._state.value]).fetchall():
                if time.monotonic() >= until:
                    return taken
                taken += self._one(tenant_id, document_id)
            if taken == before:
                return taken

    def _one(self, tenant_id: UUID, document_id: UUID) -> bool:
        try:
            return self._step(tenant_id, document_id)
        except DatabaseError as fault:
            # One whose step fails again and again must not hold up the others.
            log.error(
                "document.step_failed", document_id=str(document_id), error=type(fault).__name__
            )
            _put_off(tenant_id, document_id)
            return True


def _put_off(tenant_id: UUID, document_id: UUID) -> None:
    later = timezone.now() + timedelta(seconds=_AFTER_FAULT_SECONDS)
    with tenant_scope(Context.system("knowledge", tenant_id=tenant_id)):
        Document.objects.filter(pk=document_id).exclude(wake_at=None).update(wake_at=later)
