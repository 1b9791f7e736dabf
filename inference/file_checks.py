"""Checks of models' files that were asked for: an io worker reads them in the background.

One at a time in a process, on a thread of its own: gigabytes take minutes, and the worker's threads
have other things to do. What there is to do, and who is at it, stands in PostgreSQL; a check whose
process is gone is begun anew once its lease has run out.
"""

import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
import structlog
from django.db import connection as django_connection

from inference.models import CheckState
from inference.verification import NotAsRegistered, verify_model_version
from portal.core.actors import Context
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

_TELL_SECONDS: Final = 1.0
_LEASE: Final = "interval '60 seconds'"
# After so long it is told that no io worker has the folder.
_PATIENCE: Final = "interval '60 seconds'"

_DUE: Final = f"""
SELECT c.version_id, v.path, c.asked_at < clock_timestamp() - {_PATIENCE} AS overdue
  FROM inference_modelcheck c JOIN inference_modelversion v ON v.id = c.version_id
 WHERE c.state = '{CheckState.WAITING.value}'
    OR (c.state = '{CheckState.RUNNING.value}' AND c.lease_until < clock_timestamp())
 ORDER BY c.asked_at
"""
_CLAIM: Final = f"""
UPDATE inference_modelcheck
   SET state = '{CheckState.RUNNING.value}', started_at = clock_timestamp(), read_bytes = 0,
       file = '', lease_until = clock_timestamp() + {_LEASE}
 WHERE version_id = %s AND (state = '{CheckState.WAITING.value}'
    OR (state = '{CheckState.RUNNING.value}' AND lease_until < clock_timestamp()))
RETURNING started_at
"""
_TELL: Final = f"""
UPDATE inference_modelcheck
   SET file = %s, read_bytes = %s, lease_until = clock_timestamp() + {_LEASE}
 WHERE version_id = %s AND state = '{CheckState.RUNNING.value}' AND started_at = %s
"""
_END: Final = f"""
UPDATE inference_modelcheck
   SET state = %s, faults = %s, detail = %s, file = '', lease_until = NULL,
       read_bytes = CASE WHEN %s THEN total_bytes ELSE read_bytes END,
       ended_at = clock_timestamp()
 WHERE version_id = %s AND state = '{CheckState.RUNNING.value}' AND started_at = %s
"""


class _Superseded(Exception):
    """Another process has taken the check over."""


class FileChecks:
    """A process's checks.

    Args:
        database_url: of ``portal_gateway``.
    """

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self) -> bool:
        """Begins the check that has waited longest, unless one is under way in this process.

        Returns:
            whether it began one.
        """
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return False
            connection = self._connect()
            claim = self._claim(connection)
            if claim is None:
                connection.close()
                return False
            self._thread = threading.Thread(
                target=self._run, args=(connection, *claim), name="file-check", daemon=True
            )
            self._thread.start()
            return True

    def wait(self, timeout: float | None = None) -> None:
        """Waits until the check that was begun has ended."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self._database_url, autocommit=True, application_name="file-checks", connect_timeout=5
        )

    def _claim(self, connection: psycopg.Connection[Any]) -> tuple[UUID, datetime] | None:
        for version_id, path, overdue in connection.execute(_DUE).fetchall():
            if not (overdue or Path(path).is_dir()):
                # The io workers of another machine may have the files.
                continue
            begun = connection.execute(_CLAIM, [version_id]).fetchone()
            if begun is not None:
                return version_id, begun[0]
        return None

    def _run(
        self, connection: psycopg.Connection[Any], version_id: UUID, started_at: datetime
    ) -> None:
        try:
            with connection:
                _Check(connection, version_id, started_at).run()
        except (_Superseded, psycopg.Error) as fault:
            log.warning("file_check.lost", version_id=str(version_id), error=str(fault))
        finally:
            django_connection.close()


class _Check:
    """One check, on the thread that runs it."""

    def __init__(
        self, connection: psycopg.Connection[Any], version_id: UUID, started_at: datetime
    ) -> None:
        self._connection = connection
        self._version_id = version_id
        self._started_at = started_at
        self._told_at = time.monotonic()
        self._file = ""
        self._before = 0  # bytes of the files before this one
        self._size = 0

    def run(self) -> None:
        state, faults, detail = CheckState.GOOD, b"[]", ""
        try:
            verify_model_version(
                context=Context.system("file check"),
                version_id=self._version_id,
                progress=self._progress,
            )
        except NotAsRegistered as fault:
            state, faults, detail = CheckState.BAD, msgspec.json.encode(fault.faults), fault.message
        except PortalError as fault:
            state, detail = CheckState.BAD, fault.message
        except OSError as fault:
            state, detail = CheckState.BAD, f"A file can't be read: {fault}."
        read = state == CheckState.GOOD
        ended = self._connection.execute(
            _END,
            [
                state.value,
                faults.decode(),
                "" if faults != b"[]" else detail[:500],
                read,
                self._version_id,
                self._started_at,
            ],
        )
        if not ended.rowcount:
            raise _Superseded("another process has taken it over")
        log.info("file_check.ended", version_id=str(self._version_id), state=state.value)

    def _progress(self, name: str, done: int, size: int) -> None:
        if name != self._file:
            self._before += self._size
            self._file, self._size = name, size
        now = time.monotonic()
        if now - self._told_at < _TELL_SECONDS:
            return
        self._told_at = now
        names = [name[:500], self._before + done, self._version_id, self._started_at]
        if not self._connection.execute(_TELL, names).rowcount:
            raise _Superseded("another process has taken it over")
