"""An installation on one machine: from an empty folder to a portal that answers, and down."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from portal.core.supervisor import ready, secrets
from portal.core.supervisor.faults import (
    Fault,
    Stopped,
    disk_full,
    explain,
    last_line,
    says_disk_full,
)
from portal.core.supervisor.launch import child_env, end, marked, spawn
from portal.core.supervisor.layout import Layout, Lock, holder, started_at, write_private
from portal.core.supervisor.postgres import EmbeddedPostgres
from portal.core.supervisor.processes import Processes, Program
from portal.core.supervisor.progress import Progress
from portal.core.supervisor.valkey import EmbeddedValkey
from portal.core.supervisor.wishes import Wishes

ROOT = Path(__file__).resolve().parents[3]

_FREE_MB = 200
_LOW_MB = 100
_DISK_EVERY_S = 2.0
_READY_S = 300.0
_POLL_S = 0.1
_DRAIN_S = 30.0
_WEB_S = 15.0
_SERVER_S = 60.0
_CODE = ("portal", "audit", "tenants", "inference", "knowledge")
_SET_UP_BY = {".py", ".css", ".js", ".svg", ".html", ".mo"}
_SHOWN = (
    "url",
    "api_key",
    "model",
    "app",
    "embedding_model",
    "admin_email",
    "admin_password",
    "security_email",
    "security_password",
    "auditor_email",
    "auditor_password",
    "tenant_owner_email",
    "tenant_owner_password",
)


class Installation:
    """Everything that runs under one data folder.

    Args:
        data_dir: the folder; made if missing.
        host, port: where the portal listens.
        progress: where an operator reads what goes on.
        root: the checkout whose code runs.
    """

    def __init__(
        self, data_dir: Path, host: str, port: int, progress: Progress, root: Path = ROOT
    ) -> None:
        self.layout = Layout.of(data_dir)
        self._root = root
        self.host = host
        self.port = port
        self._progress = progress
        self._postgres = None if "DATABASE_URL_APP" in os.environ else EmbeddedPostgres(data_dir)
        self._valkey = None if "REDIS_URL" in os.environ else EmbeddedValkey(data_dir)
        self._processes = Processes(progress.line)
        self._wishes = Wishes()

    def check(self) -> None:
        """Find out whether a start could succeed; nothing is started.

        Raises:
            Fault: what is in the way, in one line.
        """
        with self._locked():
            self._check()

    def _check(self) -> None:
        end_leftovers(self.layout)
        ready.require_free(self.host, self.port)
        self.layout.require_free_space(_FREE_MB)
        if self._postgres is not None and self._postgres.exists():
            self._postgres.check_folder()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.layout.prepare()
        lock = Lock(self.layout)
        if not lock.acquire():
            raise Fault(
                f"Freehold already runs on {self.layout.data_dir} (process "
                f"{holder(self.layout)}): stop it with bin/stop, or use another --data-dir."
            )
        try:
            yield
        finally:
            lock.release()

    def run(self) -> None:
        """Start everything, keep it running until a signal comes, end everything.

        Raises:
            Fault: what keeps the installation from running, in one line.
        """
        os.umask(0o077)
        self._wishes.listen(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with self._locked():
            try:
                self._bring_up()
                self._watch()
            except Stopped:
                self._progress.line("Stopping before everything was up.")
            finally:
                self._bring_down()

    def _bring_up(self) -> None:
        self._check()
        try:
            self.layout.start_json.unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, self.layout.start_json) from error
        secrets.ensure(self.layout)
        self._start_servers()
        facts = self._set_up()
        self._start_children(facts)
        self._await_ready()
        self._announce(facts)

    def _start_servers(self) -> None:
        postgres, valkey = self._postgres, self._valkey
        with self._progress.step("Starting PostgreSQL and Valkey") as tick:
            if postgres is not None:
                postgres.prepare()
                self._keep_server("postgres", postgres, stage=9)
            if valkey is not None:
                valkey.prepare()
                self._keep_server("valkey", valkey, stage=8)
            for server in (postgres, valkey):
                while server is not None and not server.is_ready():
                    tick()
                    self._stop_if_asked()
                    if server.process is None or server.process.poll() is not None:
                        raise server.diagnosis()
                    time.sleep(0.02)
            if postgres is not None:
                postgres.ensure_database()
            secrets.write_urls(
                self.layout,
                database=postgres.url if postgres else None,
                broker=valkey.url() if valkey else None,
            )

    def _keep_server(
        self, name: str, server: EmbeddedPostgres | EmbeddedValkey, *, stage: int
    ) -> None:
        polite = signal.SIGINT if isinstance(server, EmbeddedPostgres) else signal.SIGTERM
        self._processes.add(
            Program(name, server.launch, server.log, stage, _SERVER_S, polite, drains=False)
        )

    def _set_up(self) -> dict[str, Any]:
        """Roles, tables and demo data; skipped where the same code has made them before."""
        stamp = self.layout.run / "set-up"
        code = _code_digest(self._root)
        new_database = self._postgres is not None and self._postgres.is_new
        facts = {} if new_database else _read_json(self.layout.facts)
        if facts and secrets.read(stamp) == code:
            return facts
        if self._postgres is not None:
            admin = {"DATABASE_URL_ADMIN": self._postgres.admin_url()}
            self._manage("Making database roles", ["roles"], admin)
        elif "DATABASE_URL_ADMIN" in os.environ:
            self._manage("Making database roles", ["roles"])
        owner = {"FREEHOLD_DATABASE_ROLE": "owner"}
        self._manage("Making tables", ["migrate", "--no-input"], owner)
        self._manage("Gathering static files", ["collectstatic", "--no-input", "--clear"])
        part = self.layout.data_dir / "start.json.part"
        if facts:
            # What only the first run could know, so that log-ins and key stay what they were.
            write_private(part, json.dumps(facts) + "\n")
        else:
            part.unlink(missing_ok=True)
        self._manage("Making demo data and the model", ["seed_demo", "--json", str(part)])
        told = _read_json(part)
        if not told:
            raise Fault(f"The demo data's maker wrote nothing to {part}; see {self.layout.log}.")
        facts |= {name: value for name, value in told.items() if value is not None}
        write_private(self.layout.facts, json.dumps(facts, indent=2) + "\n")
        part.unlink()
        write_private(stamp, code + "\n")
        return facts

    def _manage(self, title: str, words: list[str], extra: Mapping[str, str] | None = None) -> None:
        """Run a management command as a step of its own."""
        log = self.layout.open_log("set-up")
        begin = log.stat().st_size if log.exists() else 0
        with self._progress.step(title) as tick:
            process = spawn(
                [sys.executable, "manage.py", *words],
                log=log,
                cwd=self._root,
                env=child_env(self.layout.data_dir, extra),
            )
            try:
                while process.poll() is None:
                    tick()
                    self._processes.tick()
                    self._stop_if_asked()
                    self._wishes.pause(_POLL_S)
            finally:
                _end_child(process)
        if process.returncode != 0:
            said = log.read_bytes()[begin:].decode(errors="replace")
            if says_disk_full(said):
                raise disk_full(self.layout.data_dir)
            verdict = last_line(said)
            raise Fault(f"{title} failed: `manage.py {words[0]}` said: {verdict} (log: {log})")

    def _start_children(self, facts: Mapping[str, Any]) -> None:
        missing = [name for name in ("deployment", "queue") if not facts.get(name)]
        if missing:
            raise Fault(
                f"{self.layout.facts} lacks {' and '.join(missing)}: remove that file and "
                "run bin/start again."
            )
        python, celery = sys.executable, [sys.executable, "-m", "celery", "-A", "portal.celery"]
        quiet = ["--without-gossip", "--without-mingle"]
        threads = [*celery, "worker", "--pool=threads"]
        drain_s = float(os.environ.get("DRAIN_SECONDS") or _DRAIN_S) + 5.0
        for name, of in (("inference", ""), ("embedding", "embedding_")):
            if not facts.get(f"{of}deployment"):
                continue
            queue = str(facts[f"{of}queue"])
            self._keep_child(
                name,
                [*threads, "--concurrency=2", "-Q", queue, "-n", f"{name}@%h", *quiet],
                stage=3,
                patience_s=drain_s,
                extra={
                    "FREEHOLD_DATABASE_ROLE": "gateway",
                    "WORKER_DEPLOYMENT": str(facts[f"{of}deployment"]),
                    "OMP_WAIT_POLICY": "passive",
                },
            )
        address = ["--host", self.host, "--port", str(self.port)]
        self._keep_child("web", [python, "-m", "portal.web", *address], stage=2, patience_s=_WEB_S)
        self._keep_child(
            "io",
            [*threads, "--concurrency=4", "-Q", "io", "-n", "io@%h", *quiet],
            stage=3,
            patience_s=drain_s,
        )
        schedule = self.layout.run / "beat-schedule"
        beat = [*celery, "beat", "--schedule", str(schedule), "--pidfile="]
        self._keep_child("beat", beat, stage=1, patience_s=_WEB_S)

    def _keep_child(
        self,
        name: str,
        argv: list[str],
        *,
        stage: int,
        patience_s: float,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        env = child_env(self.layout.data_dir, extra)
        log = self.layout.open_log(name)

        def launch() -> subprocess.Popen[bytes]:
            return spawn(argv, log=log, cwd=self._root, env=env)

        self._processes.add(Program(name, launch, log, stage, patience_s))

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        awaited: tuple[str, ...] = ()
        with self._progress.step("Starting web, workers and beat") as tick:
            while True:
                answer = ready.ask(self.host, self.port)
                if answer.ready:
                    return
                if answer.awaited != awaited and answer.awaited:
                    awaited = answer.awaited
                    self._progress.note(f"[{', '.join(awaited)}]")
                tick()
                self._processes.tick()
                self._stop_if_asked()
                stuck = self._processes.looping()
                if stuck is not None:
                    raise Fault(
                        f"{stuck.program.name} can't run: {stuck.verdict()} "
                        f"(log: {stuck.program.log})"
                    )
                if time.monotonic() > deadline:
                    raise Fault(
                        f"Not ready after {_READY_S:.0f} s, still awaiting "
                        f"{', '.join(awaited) or 'the web process'}: see {self.layout.log}."
                    )
                self._wishes.pause(_POLL_S)

    def _announce(self, facts: Mapping[str, Any]) -> None:
        address = ready.url(self.host, self.port)
        told = {**facts, "url": address}
        shown = {name: told.get(name) for name in _SHOWN}
        write_private(self.layout.start_json, json.dumps(shown, indent=2) + "\n")
        body = {
            "model": told.get("model"),
            "stream": True,
            "messages": [{"role": "user", "content": "Say hello in one sentence."}],
        }
        say = self._progress.line
        say(f"\nFreehold is ready after {self._progress.elapsed():.1f} s: {address}\n")
        for title, who in (
            ("System administrator", "admin"),
            ("Security administrator", "security"),
            ("Auditor", "auditor"),
            ("Tenant owner", "tenant_owner"),
        ):
            say(f"  {title:<24}{told.get(f'{who}_email')}  {told.get(f'{who}_password')}")
        say(f"  {'API key':<24}{told.get('api_key')}")
        names = (told.get(name) for name in ("model", "embedding_model"))
        say(f"  {'Models':<24}{', '.join(filter(None, names))}")
        say(f"  {'All of this as JSON':<24}{self.layout.start_json}\n")
        say("Try it:\n")
        say(
            f"curl -N {address}/v1/chat/completions -H 'Authorization: Bearer "
            f"{told.get('api_key')}' -H 'Content-Type: application/json' -d '{json.dumps(body)}'\n"
        )
        question = {"query": "How many days of leave do I have?", "stream": True}
        say(
            f"curl -N {address}/api/v1/apps/{told.get('app')}/chat -H 'Authorization: Bearer "
            f"{told.get('api_key')}' -H 'Content-Type: application/json' "
            f"-d '{json.dumps(question)}'\n"
        )
        say("Ctrl-C or bin/stop ends it.")

    def _watch(self) -> None:
        warned, next_look = False, 0.0
        while not self._wishes.count:
            self._processes.tick()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _DISK_EVERY_S
                free = self.layout.free_mb()
                if free < _LOW_MB and not warned:
                    self._progress.line(
                        f"The disk that holds {self.layout.data_dir} has only {free} MB left: "
                        "free some space, or requests will soon be refused."
                    )
                warned = free < _LOW_MB
            self._wishes.pause(_POLL_S)

    def _stop_if_asked(self) -> None:
        if self._wishes.count:
            raise Stopped

    def _bring_down(self) -> None:
        if not self._processes.any():
            return
        asked = self._wishes.count
        with self._progress.step("Stopping") as tick:

            def hurry() -> bool:
                tick()
                return self._wishes.count > asked

            self._processes.stop(hurry)


def _end_child(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _read_json(path: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _code_digest(root: Path) -> str:
    """A digest of the code, pins and static files that set-up depends on."""
    digest = hashlib.sha256(os.environ.get("DATABASE_URL_APP", "").encode())
    files = [root / "requirements-embedded.txt", root / "manage.py"]
    for room in _CODE:
        files += sorted(p for p in (root / room).rglob("*") if p.suffix in _SET_UP_BY)
    for file in files:
        digest.update(os.fsencode(file.relative_to(root)) + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def end_leftovers(layout: Layout) -> None:
    """End what a killed supervisor left behind under this data folder, and nothing else."""
    for pid in marked(layout.data_dir):
        # Told to end when its supervisor died: it has had its time.
        end(pid, signal.SIGTERM, 2.0)
    EmbeddedValkey(layout.data_dir).clean_up()
    EmbeddedPostgres(layout.data_dir).clean_up()


def stop(data_dir: Path, report: Callable[[str], None], patience_s: float = 120.0) -> None:
    """End the supervisor of a data folder and all that it runs, and wait until all is down.

    Raises:
        Fault: it is still running after ``patience_s``, or is another user's.
    """
    layout = Layout.of(data_dir)
    pid = holder(layout)
    if pid is None:
        end_leftovers(layout)
        report(f"Freehold is not running on {layout.data_dir}.")
        return
    begun = started_at(pid)
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError as error:
        raise Fault(f"Process {pid} is another user's: run bin/stop as that user.") from error
    except ProcessLookupError:
        pass
    deadline = time.monotonic() + patience_s
    while started_at(pid) == begun:
        if time.monotonic() > deadline:
            raise Fault(f"Process {pid} has not ended after {patience_s:.0f} s; see {layout.log}.")
        time.sleep(0.05)
    end_leftovers(layout)
    report("Freehold is stopped.")
