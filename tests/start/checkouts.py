"""A fresh checkout to start the product in, and what a terminal does with it."""

import importlib.metadata
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from portal.core.supervisor.launch import MARK, processes_where
from tests.supervisor.product import clean_env

REPOSITORY = Path(__file__).resolve().parents[2]
READY = "Ctrl-C or bin/stop ends it."
FIRST_START_S = 240.0
STOP_S = 90.0

_NOT_OF_A_CHECKOUT = (
    ".git",
    ".venv",
    "var",
    "staticfiles",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
)
_KINDS = {
    "embedded": ("requirements-embedded.txt",),
    "full": ("requirements.txt", "requirements-dev.txt"),
}


def checkout(folder: Path) -> Path:
    """The tree as it comes from the repository, with this session's packages as its ``.venv``.

    The commands install nothing only because every pinned package is there in its very version,
    which is checked here.
    """
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns(*_NOT_OF_A_CHECKOUT))
    venv = folder / ".venv"
    venv.mkdir()
    for part in ("bin", "include", "lib", "pyvenv.cfg"):
        (venv / part).symlink_to(Path(sys.prefix) / part)
    for kind, files in _KINDS.items():
        assert not _lacking(folder, files)
        _stamp(folder, kind, files)
    return folder


def _lacking(root: Path, files: Sequence[str]) -> list[str]:
    """Pins that this session's packages do not meet."""
    lines = [line for name in files for line in (root / name).read_text().splitlines()]
    pins = [Requirement(line) for line in lines if "==" in line and not line.startswith("#")]
    return [
        str(pin)
        for pin in pins
        if (pin.marker is None or pin.marker.evaluate())
        # A build of torch for some hardware adds a suffix to the version.
        and _version(pin.name).partition("+")[0] not in pin.specifier
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _stamp(root: Path, kind: str, files: Sequence[str]) -> None:
    """The note by which ``bin/_setup.sh`` knows that it has installed these files."""
    script = (
        'root=$1; . "$root/bin/_setup.sh"; cd "$root"; kind=$2; shift 2; '
        '{ cat "$@"; echo "$shipped_model"; } | sha256sum >".venv/.installed-$kind"'
    )
    subprocess.run(["sh", "-euc", script, "sh", str(root), kind, *files], check=True)


@dataclass
class Terminal:
    """A shell in a checkout.

    Attributes:
        prefix: words put before `bin/start`, such as those of a tracer.
        home: the user's home folder.
    """

    root: Path
    home: Path
    prefix: tuple[str, ...] = ()
    _running: list[subprocess.Popen[str]] = field(default_factory=list)

    def env(self) -> dict[str, str]:
        # Whoever runs this command for the first time has none of the tests' settings.
        return clean_env(HOME=str(self.home))

    def run(self, script: str, *, timeout: float = 120.0) -> str:
        """What a shell script says; fails unless it ends well and in time."""
        done = subprocess.run(
            ["sh", "-euc", script],
            check=False,
            cwd=self.root,
            env=self.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Runs ``bin/start`` in a process group of its own, as a terminal does."""
        process = subprocess.Popen(
            [*self.prefix, "bin/start", *words],
            cwd=self.root,
            env=self.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            assert process.stdout is not None
            process.stdout.close()


@contextmanager
def terminal(root: Path, home: Path, *prefix: str) -> Iterator[Terminal]:
    """A terminal whose commands are ended with it."""
    home.mkdir(exist_ok=True)
    opened = Terminal(root, home, prefix)
    try:
        yield opened
    finally:
        opened.close()


def read_until_ready(process: subprocess.Popen[str], patience_s: float = FIRST_START_S) -> str:
    """What ``bin/start`` says until it is ready; fails if it ends or takes too long."""
    assert process.stdout is not None
    watchdog = threading.Timer(patience_s, os.killpg, [process.pid, signal.SIGTERM])
    watchdog.start()
    said = ""
    try:
        for line in process.stdout:
            said += line
            if READY in line:
                return said
    finally:
        watchdog.cancel()
    pytest.fail(f"bin/start did not become ready:\n{said}")


def press_ctrl_c(process: subprocess.Popen[str]) -> int:
    """What a terminal does on Ctrl-C; the exit status once everything has ended."""
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(STOP_S)


def processes_of(data_dir: Path) -> list[int]:
    """Pids of everything that runs for this data folder: the product's own and its servers."""
    mark = f"{MARK}={data_dir}".encode()
    folder = os.fsencode(data_dir)

    def holds(process: Path) -> bool:
        if mark in (process / "environ").read_bytes().split(b"\0"):
            return True
        return folder in (process / "cmdline").read_bytes()

    return processes_where(holds)


def ends(pid: int, patience_s: float = STOP_S) -> bool:
    """Whether a process ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([descriptor], [], [], patience_s)
    os.close(descriptor)
    return bool(ended)
