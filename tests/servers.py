"""The embedded PostgreSQL and Valkey of one test session.

A migrated cluster is made once for each state of the migrations and copied for each session,
so that a session starts in seconds. Nothing in it is durable: the disk is never flushed.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from portal.core.env import Env
from portal.core.supervisor import secrets
from portal.core.supervisor.launch import child_env
from portal.core.supervisor.layout import Layout
from portal.core.supervisor.postgres import EmbeddedPostgres
from portal.core.supervisor.valkey import EmbeddedValkey

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(tempfile.gettempdir()) / f"freehold-tests-{os.geteuid()}"

# What a migrated cluster depends on.
_SCHEMA_SOURCES = (
    "*/migrations/*.py",
    "portal/core/migrations/*.py",
    "*/operations.py",
    "portal/core/tenancy/operations.py",
    "portal/core/database_roles.py",
    "portal/core/management/commands/roles.py",
    "portal/core/supervisor/postgres.py",
    "portal/core/supervisor/secrets.py",
    "requirements-embedded.txt",
    "tests/servers.py",
)
_TEST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "log_min_error_statement": "error",
}


def _schema_digest() -> str:
    digest = hashlib.sha256()
    for pattern in _SCHEMA_SOURCES:
        for file in sorted(ROOT.glob(pattern)):
            digest.update(bytes(file.relative_to(ROOT)) + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def manage(data_dir: Path, *words: str, **extra: str) -> str:
    """Runs ``manage.py`` on a data folder; returns what it printed.

    Raises:
        RuntimeError: with all it said, if it failed.
    """
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env=child_env(data_dir, extra),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"manage.py {' '.join(words)} failed:\n{done.stdout}")
    return done.stdout


class TemplateCluster:
    """A migrated, stopped cluster and the secrets it was made with."""

    def __init__(self) -> None:
        HOME.mkdir(mode=0o711, exist_ok=True)
        self.data_dir = HOME / _schema_digest()
        self.layout = Layout.of(self.data_dir)
        with _locked(self._lock):
            self.layout.prepare()
            secrets.ensure(self.layout)
            secrets.superuser_password(self.layout.secrets)
            postgres = EmbeddedPostgres(self.data_dir)
            broker = EmbeddedValkey(self.data_dir).url()
            secrets.write_urls(self.layout, database=postgres.url, broker=broker)

    @property
    def _lock(self) -> Path:
        return HOME / f"{self.data_dir.name}.lock"

    @property
    def _migrated(self) -> Path:
        return self.layout.run / "migrated"

    def ensure(self) -> Path:
        """The cluster's folder, made and migrated if there is none yet."""
        with _locked(self._lock):
            if not self._migrated.exists():
                shutil.rmtree(self.layout.postgres, ignore_errors=True)
                self._make()
                self._migrated.touch()
        return self.layout.postgres

    def _make(self) -> None:
        postgres = EmbeddedPostgres(self.data_dir)
        postgres.start()
        try:
            with psycopg.connect(postgres.admin_url(), autocommit=True) as connection:
                for name, value in _TEST_SETTINGS.items():
                    connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            manage(self.data_dir, "roles", DATABASE_URL_ADMIN=postgres.admin_url())
            manage(
                self.data_dir,
                "migrate",
                "--no-input",
                "--skip-checks",
                FREEHOLD_DATABASE_ROLE="owner",
            )
        finally:
            postgres.stop()


class SessionServers:
    """The servers of this test session, in a folder of its own that is removed at the end."""

    def __init__(self) -> None:
        self._template = TemplateCluster()
        _remove_abandoned()
        self.data_dir = HOME / f"run-{os.getpid()}"
        self.layout = Layout.of(self.data_dir)
        self.layout.prepare()
        shutil.copytree(self._template.layout.secrets, self.layout.secrets, dirs_exist_ok=True)
        self.postgres = EmbeddedPostgres(self.data_dir)
        self.valkey = EmbeddedValkey(self.data_dir)
        secrets.write_urls(self.layout, database=self.postgres.url, broker=self.valkey.url())

    def enter_environment(self) -> None:
        """Points this process, and those it starts, at this session's folder alone."""
        for name in Env.model_fields:
            os.environ.pop(name.upper(), None)
        os.environ["FREEHOLD_DATA_DIR"] = str(self.data_dir)
        # Receivers of webhooks and Dify stand on the loopback here; nothing goes anywhere else.
        os.environ["WEBHOOK_NETWORKS"] = "127.0.0.0/8, ::1"
        os.environ["DIFY_NETWORKS"] = "127.0.0.0/8"
        os.environ["SOURCE_NETWORKS"] = "127.0.0.0/8"

    def start(self) -> None:
        """Copies the migrated cluster and starts both servers."""
        template = self._template.ensure()
        # cp keeps the owner, who may be another user, and shares blocks where it can.
        subprocess.run(
            ["cp", "-a", "--reflink=auto", str(template), str(self.layout.postgres)], check=True
        )
        self.postgres.start()
        self.valkey.start()

    def url(self, role: str) -> str:
        """The URL of a login role (``app``, ``gateway``, ``sealer``...) or of the ``superuser``."""
        if role == "superuser":
            return self.postgres.admin_url()
        value = secrets.read(self.layout.secrets / f"database_url_{role}")
        assert value is not None
        return value

    def stop(self) -> None:
        """Stops the servers and removes their folder."""
        self.valkey.stop()
        self.postgres.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)


def _remove_abandoned() -> None:
    """Removes the folders of sessions that were killed."""
    for folder in HOME.glob("run-*"):
        if not Path(f"/proc/{folder.name.removeprefix('run-')}").exists():
            shutil.rmtree(folder, ignore_errors=True)
