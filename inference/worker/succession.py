"""A worker that is started again goes on where administrators had it.

Its process has another name, so it takes the order over from the row of one that has ended: of the
same deployment, on the same host.
"""

import os
from typing import Any, Final
from uuid import UUID

import psycopg

from inference.backlog import WORKER_SECONDS
from inference.models.dispatch import DesiredState, WorkerState

_CANDIDATES: Final = f"""
SELECT id, name, desired_state, load_generation,
       state = '{WorkerState.STOPPED.value}'
       OR heartbeat_at < now() - interval '{WORKER_SECONDS} seconds'
  FROM inference_worker
 WHERE deployment_id = %s AND starts_with(name, %s)
   AND desired_state <> '{DesiredState.SERVING.value}'
 ORDER BY heartbeat_at DESC FOR UPDATE
"""
_TAKE: Final = "DELETE FROM inference_worker WHERE id = %s"


def take_over(
    connection: psycopg.Connection[Any], *, deployment_id: UUID, name: str
) -> tuple[str, int] | None:
    """Desired state and load generation of a worker that has ended, whose row goes.

    Args:
        name: of this worker: deployment, host and process id.

    Raises:
        psycopg.Error: the database is away.
    """
    prefix = name.rpartition(":")[0] + ":"
    with connection.transaction():
        for id_, other, state, generation, gone in connection.execute(
            _CANDIDATES, [deployment_id, prefix]
        ):
            # In a container the process id may well be the same again.
            if gone or other == name or not _lives(other.rpartition(":")[2]):
                connection.execute(_TAKE, [id_])
                return state, generation
    return None


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
