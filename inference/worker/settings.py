"""What an inference worker is assigned to: its deployment, read once at the start."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from portal.core.boot import refuse_unbound_role
from portal.core.env import Env

_QUERY: Final = """
SELECT d.id AS deployment_id, d.name, d.queue, d.engine, d.options, d.context_length,
       v.path AS artefact_path, v.digest
  FROM inference_deployment d JOIN inference_modelversion v ON v.id = d.version_id
 WHERE d.name = %s
"""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A deployment, and the database through which its jobs come."""

    deployment_id: UUID
    name: str
    queue: str
    engine: str
    options: dict[str, Any]
    context_length: int
    artefact_path: str
    digest: str
    database_url: str


def read_assignment(env: Env) -> Assignment:
    """The assignment that ``WORKER_DEPLOYMENT`` names.

    Raises:
        SystemExit: with one line that says what is missing.
    """
    url = env.database_url("gateway")
    refuse_unbound_role(url)
    with psycopg.connect(url, connect_timeout=10) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        row = cursor.execute(_QUERY, [env.worker_deployment]).fetchone()
    if row is None:
        raise SystemExit(f"There is no deployment named '{env.worker_deployment}'.")
    return Assignment(**row, database_url=url)
