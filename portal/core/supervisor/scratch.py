"""A throw-away installation around one command: for checks and benchmarks."""

import subprocess
import tempfile
from pathlib import Path

from portal.core.supervisor import secrets
from portal.core.supervisor.launch import child_env
from portal.core.supervisor.postgres import EmbeddedPostgres
from portal.core.supervisor.valkey import EmbeddedValkey


def run(command: list[str]) -> int:
    """Run a command against fresh embedded servers, which are gone afterwards.

    The command finds FREEHOLD_DATA_DIR and DATABASE_URL_ADMIN in its environment; roles and
    tables are its own business.

    Returns:
        the command's exit status.
    """
    with tempfile.TemporaryDirectory(prefix="freehold-") as folder:
        data_dir = Path(folder) / "var"
        postgres, valkey = EmbeddedPostgres(data_dir), EmbeddedValkey(data_dir)
        try:
            postgres.layout.prepare()
            secrets.ensure(postgres.layout)
            postgres.start()
            valkey.start()
            secrets.write_urls(postgres.layout, database=postgres.url, broker=valkey.url())
            env = child_env(data_dir, {"DATABASE_URL_ADMIN": postgres.admin_url()})
            return subprocess.run(command, check=False, env=env).returncode
        finally:
            valkey.stop()
            postgres.stop()
