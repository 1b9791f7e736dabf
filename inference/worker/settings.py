"""What an inference worker is assigned to: its deployment, read at each load."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from portal.core.boot import refuse_unbound_role
from portal.core.env import Env
from portal.core.errors import NotFound

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

    @property
    def loadable(self) -> dict[str, Any]:
        """What a worker that has loaded it goes on with, whatever is edited meanwhile."""
        return {
            "engine": self.engine,
            "options": self.options,
            "context_length": self.context_length,
        }


def read_assignment(env: Env) -> Assignment:
    """The assignment that ``WORKER_DEPLOYMENT`` names.

    Raises:
        SystemExit: with one line that says what is missing.
    """
    url = env.database_url("gateway")
    refuse_unbound_role(url)
    try:
        return read_deployment(url, env.worker_deployment)
    except NotFound as missing:
        raise SystemExit(missing.message) from None


def read_deployment(url: str, name: str) -> Assignment:
    """The deployment of that name as it is now.

    Raises:
        NotFound: there is none.
        psycopg.Error: the database is away.
    """
    with psycopg.connect(url, connect_timeout=10) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        row = cursor.execute(_QUERY, [name]).fetchone()
    if row is None:
        raise NotFound(f"There is no deployment named '{name}'.")
    return Assignment(**row, database_url=url)
