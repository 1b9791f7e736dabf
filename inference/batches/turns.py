"""An io worker's turns at batches: one at a time in a process, each of them short."""

import threading
from typing import Any, Final

import psycopg

from inference.batches.steps import run_due

# The clock rings every second; a turn leaves the worker's threads to other work in between.
_SECONDS: Final = 0.8


class Turns:
    """Keeps its connection: logging in every second costs more than a look."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()

    def take(self) -> int:
        """One turn, unless this process is at one; how many steps it took.

        Raises:
            psycopg.Error: the database is away; the next turn connects anew.
        """
        if not self._lock.acquire(blocking=False):
            return 0
        try:
            return run_due(self._open(), seconds=_SECONDS)
        except psycopg.Error:
            self._drop()
            raise
        finally:
            self._lock.release()

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._database_url, autocommit=True, application_name="batches", connect_timeout=5
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
