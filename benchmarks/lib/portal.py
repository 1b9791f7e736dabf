"""A whole installation to be measured: servers, roles, tables, models, web, workers and beat."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import psycopg

from benchmarks.lib.seed import STREAM, WHOLE
from portal.core.env import Env
from portal.core.supervisor import ready, secrets
from portal.core.supervisor.launch import child_env, spawn
from portal.core.supervisor.layout import Layout
from portal.core.supervisor.postgres import EmbeddedPostgres
from portal.core.supervisor.valkey import EmbeddedValkey

ROOT: Final = Path(__file__).resolve().parents[2]
_HOST: Final = "127.0.0.1"
_READY_S: Final = 60.0
_STOP_S: Final = 45.0
_LOG_SEGMENTS: Final = 64
_CELERY: Final = ["-m", "celery", "-A", "portal.celery"]
_WORKER: Final = [*_CELERY, "worker", "--pool=threads", "--without-gossip", "--without-mingle"]


class Portal:
    """Freehold in a folder of its own, which is removed at the end; a context manager.

    Args:
        data_dir: the folder; made anew.
        tenants: how many tenants to make, each with a key.
        settings: environment of every process, beside what the folder says.
    """

    def __init__(
        self, data_dir: Path, *, tenants: int = 1, settings: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.host = _HOST
        self.port = free_port()
        self.keys: tuple[str, ...] = ()
        self._tenants = tenants
        self._settings = dict(settings or {})
        self._layout = Layout.of(data_dir)
        self._postgres = EmbeddedPostgres(data_dir)
        self._valkey = EmbeddedValkey(data_dir)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._launches: dict[str, tuple[list[str], Mapping[str, str]]] = {}
        self._changing = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """Every part's topmost process, by name."""
        servers = {"postgres": self._postgres.process, "valkey": self._valkey.process}
        parts = {**self._children, **servers}
        return {name: process.pid for name, process in parts.items() if process is not None}

    def database_url(self, role: str) -> str:
        """The URL of a login role, or of the ``superuser``."""
        if role == "superuser":
            return self._postgres.admin_url()
        url = secrets.read(self._layout.secrets / f"database_url_{role}")
        assert url is not None
        return url

    def stop(self) -> None:
        """Ends everything and removes the folder."""
        for process in reversed(self._children.values()):
            process.terminate()
        for process in self._children.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._children.clear()
        self._valkey.stop()
        self._postgres.stop()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def add_gateway(self, name: str, planes: str = "data") -> int:
        """Starts one more web process, of the data plane or of ``both``; returns its port."""
        port = free_port()
        words = ["-m", "portal.web", "--host", self.host, "--port", str(port)]
        self._spawn(name, words, {"FREEHOLD_PLANES": planes})
        return port

    def add_io_worker(self, name: str) -> None:
        """Starts one more io worker."""
        words = ["--concurrency=4", "-Q", "io", "-n", f"{name.replace(' ', '-')}@%h"]
        self._spawn(name, [*_WORKER, *words], {})

    def add_worker(self, name: str, deployment: str) -> None:
        """Starts a worker of a deployment whose queue has its name."""
        role = {"FREEHOLD_DATABASE_ROLE": "gateway", "WORKER_DEPLOYMENT": deployment}
        words = ["--concurrency=2", "-Q", deployment, "-n", f"{name.replace(' ', '-')}@%h"]
        self._spawn(name, [*_WORKER, *words], role)

    def kill(self, name: str) -> None:
        """Ends a process as the kernel does when memory runs out, and starts it again."""
        with self._changing:
            self._children[name].kill()
            self._children[name].wait()
            self._spawn(name, *self._launches[name])

    def revive(self) -> list[str]:
        """Starts again what ended by itself, as a supervisor does; its names."""
        with self._changing:
            ended = [name for name, process in self._children.items() if process.poll() is not None]
            for name in ended:
                self._spawn(name, *self._launches[name])
        return ended

    def restart(self, name: str) -> None:
        """Ends a process as an update does, which lets it finish its work, and starts it again."""
        self._children[name].terminate()
        self._children[name].wait(_STOP_S)
        self._spawn(name, *self._launches[name])

    def kill_valkey(self) -> None:
        """Ends the broker at once, and starts an empty one."""
        assert self._valkey.process is not None
        self._valkey.process.kill()
        self._valkey.process.wait()
        self._valkey.start()

    def restart_postgres(self) -> None:
        """Stops the database, which ends every connection, and starts it again."""
        self._postgres.stop()
        self._postgres.start()

    def _start(self) -> None:
        for name in Env.model_fields:
            os.environ.pop(name.upper(), None)
        self._layout.prepare()
        secrets.ensure(self._layout)
        self._postgres.start()
        self._valkey.start()
        secrets.write_urls(self._layout, database=self._postgres.url, broker=self._valkey.url())
        admin = {"DATABASE_URL_ADMIN": self._postgres.admin_url()}
        self.run(["manage.py", "roles"], admin)
        owner = {"FREEHOLD_DATABASE_ROLE": "owner"}
        self.run(["manage.py", "migrate", "--no-input", "--skip-checks"], owner)
        self._recycle_log()
        told = self.data_dir / "seed.json"
        seed = ["-m", "benchmarks.lib.seed", "--tenants", str(self._tenants), "--json", str(told)]
        self.run(seed)
        self.keys = tuple(json.loads(told.read_text())["keys"])
        self._start_children()
        self.await_ready()

    def _recycle_log(self) -> None:
        """Gives the server log segments to use again, as one that has run for a while has.

        A fresh one makes each segment new, which stops every commit for some 60 ms.
        """
        with psycopg.connect(self._postgres.admin_url(), autocommit=True) as connection:
            for _ in range(_LOG_SEGMENTS):
                connection.execute("SELECT pg_logical_emit_message(false, 'benchmark', '')")
                connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")

    def run(self, words: list[str], extra: Mapping[str, str] | None = None, told: str = "") -> str:
        """Runs Python in this installation's environment; returns what it printed.

        Args:
            words: arguments of the interpreter.
            told: its standard input.
        """
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=child_env(self.data_dir, extra),
            check=False,
            input=told,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _start_children(self) -> None:
        for name, queue in (("worker", WHOLE), ("stream worker", STREAM)):
            self.add_worker(name, queue)
        self.add_io_worker("io worker")
        schedule = ["--schedule", str(self._layout.run / "beat-schedule"), "--pidfile="]
        self._spawn("beat", [*_CELERY, "beat", *schedule], {})
        web = ["-m", "portal.web", "--host", self.host, "--port", str(self.port)]
        self._spawn("web", web, {"FREEHOLD_PLANES": "data"})

    def _spawn(self, name: str, words: list[str], extra: Mapping[str, str]) -> None:
        log = self._layout.open_log(name.replace(" ", "-"))
        env = child_env(self.data_dir, {**self._settings, **extra})
        self._launches[name] = (words, extra)
        self._children[name] = spawn([sys.executable, *words], log=log, cwd=ROOT, env=env)

    def await_ready(self) -> None:
        """Returns when every enabled deployment has a worker; the first gateway says so."""
        deadline = time.monotonic() + _READY_S
        while not (answer := ready.ask(self.host, self.port)).ready:
            for name, process in self._children.items():
                if process.poll() is not None:
                    said = (self._layout.log / f"{name.replace(' ', '-')}.log").read_text()
                    raise SystemExit(f"{name} stopped:\n{said[-2000:]}")
            if time.monotonic() > deadline:
                raise SystemExit(f"Not ready after {_READY_S:.0f} s: {', '.join(answer.awaited)}.")
            time.sleep(0.1)


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
