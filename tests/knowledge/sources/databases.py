"""Real databases to read: the session's PostgreSQL by TCP, and a MariaDB of our own."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pymysql

from tests.certificates import certificate
from tests.servers import SessionServers
from tests.waiting import eventually

PASSWORD = "reader's secret"
_SHARED = Path("/usr/share/mysql")


class Database(Protocol):
    """A database with a user who may read it."""

    kind: str
    port: int
    database: str

    def execute(self, *statements: str) -> None:
        """Statements of its owner."""
        ...


class Relay:
    """Leads connections to a loopback port on to a Unix socket, until they are cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Breaks off every connection; new ones can be made."""
        for near in list(self._open):
            with suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[near], daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(str(self._path))
            self._open.add(near)
            back = threading.Thread(target=_lead, args=[far, near], daemon=True)
            back.start()
            _lead(near, far)
            back.join()
            self._open.discard(near)


def _lead(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class PostgreSQL:
    """A database of its own on the session's server."""

    kind = "postgresql"

    def __init__(self, servers: SessionServers, relay: Relay) -> None:
        self._url = servers.url("superuser")
        self.relay = relay
        self.port = relay.port
        self.database = f"shop_{os.getpid()}"
        with psycopg.connect(self._url, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {self.database}".encode())
            admin.execute(psycopg.sql.SQL("CREATE ROLE reader LOGIN PASSWORD {}").format(PASSWORD))
        self.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader")

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self._url, dbname=self.database, autocommit=True) as owner:
            for statement in statements:
                owner.execute(statement.encode())

    def drop(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {self.database} WITH (FORCE)".encode())
            admin.execute("DROP ROLE reader")


class MariaDB:
    """A server that speaks MySQL's protocol, on a loopback port.

    Attributes:
        authority: the file that vouches for its certificate, which is for ``localhost``.
    """

    kind = "mysql"
    database = "shop"

    def __init__(self, folder: Path, port: int, authority: Path) -> None:
        self.authority = authority
        self._socket = folder / "mysql.sock"
        self.port = port

    def execute(self, *statements: str) -> None:
        with self._owner() as owner, owner.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0

    def make(self) -> None:
        with self._owner("mysql") as owner, owner.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {self.database} CHARACTER SET utf8mb4")
            cursor.execute("CREATE USER reader@'%%' IDENTIFIED BY %s", (PASSWORD,))
            cursor.execute(f"GRANT SELECT ON {self.database}.* TO reader@'%'")

    def _owner(self, database: str = "") -> "pymysql.Connection[Any]":
        return pymysql.connect(
            unix_socket=str(self._socket),
            user="root",
            database=database or self.database,
            autocommit=True,
        )


@contextmanager
def running_postgresql(servers: SessionServers) -> Iterator[PostgreSQL]:
    """The session's server, by TCP."""
    relay = Relay(servers.postgres.socket_folder / ".s.PGSQL.5432")
    database = PostgreSQL(servers, relay)
    try:
        yield database
    finally:
        database.drop()
        relay.close()


@contextmanager
def running_mariadb() -> Iterator[MariaDB]:
    """A server that lives as long as this is open."""
    folder = Path(tempfile.mkdtemp(prefix="freehold-mariadb-"))
    data = folder / "data"
    user = ["--user=root"] if os.geteuid() == 0 else []
    _bootstrap(data, user)
    _, authority = certificate(folder, "localhost")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    server = subprocess.Popen(
        [
            _program("mariadbd"),
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={folder / 'mysql.sock'}",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            f"--log-error={folder / 'log'}",
            f"--ssl-cert={authority}",
            f"--ssl-key={folder / 'private.pem'}",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            *user,
        ]
    )
    made = MariaDB(folder, port, authority)
    try:
        eventually(made.answers, within=60, what=(folder / "log").read_text)
        made.make()
        yield made
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def _bootstrap(data: Path, user: list[str]) -> None:
    """Makes a server's own tables, as ``mariadb-install-db`` does, which needs its clients too."""
    data.mkdir()
    # One statement a line, before the files.
    words = [
        "CREATE DATABASE mysql;",
        "USE mysql;",
        "SET @auth_root_socket = NULL;",
        "SET @skip_auth_anonymous = 1;",
        *(
            (_SHARED / f"mysql_{name}.sql").read_text()
            for name in ("system_tables", "performance_tables", "system_tables_data")
        ),
    ]
    subprocess.run(
        [_program("mariadbd"), "--no-defaults", "--bootstrap", f"--datadir={data}", *user],
        input="\n".join(words).encode(),
        check=True,
        capture_output=True,
    )


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    assert found is not None, f"{name} is missing: apt install mariadb-server-core"
    return found
