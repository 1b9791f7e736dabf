"""Where an installation keeps its things, and the lock that makes it one supervisor's."""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from portal.core.supervisor.faults import Fault, disk_full, explain

# A Unix socket's path must fit 107 bytes; PostgreSQL adds `/.s.PGSQL.5432` to its folder.
_LONGEST_SOCKET_FOLDER = 90
_MEGABYTE = 1024 * 1024
_LOG_BYTES = 10 * _MEGABYTE
_LOGS_KEPT = 3


@dataclass(frozen=True)
class Layout:
    """Paths of one installation; ``data_dir`` is absolute."""

    data_dir: Path

    @classmethod
    def of(cls, data_dir: Path) -> "Layout":
        """The layout of a data folder, which need not exist yet."""
        return cls(data_dir.expanduser().resolve())

    @property
    def secrets(self) -> Path:
        return self.data_dir / "secrets"

    @property
    def run(self) -> Path:
        return self.data_dir / "run"

    @property
    def log(self) -> Path:
        return self.data_dir / "log"

    @property
    def postgres(self) -> Path:
        return self.data_dir / "postgres"

    @property
    def valkey(self) -> Path:
        return self.data_dir / "valkey"

    @property
    def pid_file(self) -> Path:
        return self.run / "supervisor.pid"

    @property
    def facts(self) -> Path:
        """What the demo data's maker said, kept between starts."""
        return self.data_dir / "demo.json"

    @property
    def start_json(self) -> Path:
        return self.data_dir / "start.json"

    @property
    def sockets(self) -> Path:
        """The folder of the servers' Unix sockets: short enough to be one's path."""
        if len(os.fsencode(self.run)) + len("/postgres") <= _LONGEST_SOCKET_FOLDER:
            return self.run
        mark = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"freehold-{os.geteuid()}-{mark}"

    def prepare(self) -> None:
        """Make the folders, closed to others.

        Raises:
            Fault: a folder can't be made or written, or a socket folder is someone else's.
        """
        # As root the database server runs as a user of its own, who must pass through here.
        passable = 0o711 if os.geteuid() == 0 else 0o700
        try:
            for folder, mode in (
                (self.data_dir, passable),
                (self.run, passable),
                (self.log, 0o700),
                (self.secrets, 0o700),
            ):
                if not folder.is_dir():
                    folder.mkdir(parents=True)
                    folder.chmod(mode)
            self._prove_writable()
            self._prepare_sockets(passable)
        except OSError as error:
            raise explain(error, self.data_dir) from error

    def _prove_writable(self) -> None:
        for folder in (self.data_dir, self.run, self.log, self.secrets):
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
                probe.write(b"\0" * 4096)
                probe.flush()

    def _prepare_sockets(self, mode: int) -> None:
        folder = self.sockets
        if folder == self.run:
            return
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise Fault(
                f"{folder} belongs to someone else: remove it, or use a shorter --data-dir."
            )
        folder.chmod(mode)

    def free_mb(self) -> int:
        """Megabytes that may still be written under the data folder."""
        return shutil.disk_usage(self.data_dir).free // _MEGABYTE

    def require_free_space(self, megabytes: int) -> None:
        """Raise Fault unless the file system of the data folder has this much room."""
        free = self.free_mb()
        if free < megabytes:
            raise Fault(
                f"The disk that holds {self.data_dir} has {free} MB free and {megabytes} MB are "
                "needed: free some space, or choose another place with --data-dir."
            )

    def open_log(self, name: str) -> Path:
        """The log file of a program, rotated if it has grown past its bound."""
        log = self.log / f"{name}.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            for number in range(_LOGS_KEPT, 0, -1):
                older = log.with_name(f"{name}.log.{number}")
                newer = log.with_name(f"{name}.log.{number - 1}") if number > 1 else log
                if newer.exists():
                    newer.replace(older)
        return log


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads; whole or not at all, even in a power cut."""
    part = path.with_name(f".{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        part.unlink(missing_ok=True)
        raise explain(error, path) from error
    part.replace(path)


def started_at(pid: int) -> str | None:
    """A process's start in clock ticks since boot, or None if there is no such process.

    With the pid it names a process for good: pids are used again, the pair is not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


class Lock:
    """At most one supervisor a data folder; the kernel lets go of it when its holder dies."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock and write the pid file; False if another process holds it."""
        path = self._layout.run / "supervisor.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise explain(error, path) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        mine = {"pid": os.getpid(), "started_at": started_at(os.getpid())}
        try:
            self._layout.pid_file.write_text(json.dumps(mine))
        except OSError as error:
            raise disk_full(self._layout.run) from error
        return True

    def release(self) -> None:
        """Remove the pid file and let go."""
        if self._descriptor is not None:
            self._layout.pid_file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def holder(layout: Layout) -> int | None:
    """The pid of the supervisor that wrote the pid file, if that very process still lives."""
    try:
        written = json.loads(layout.pid_file.read_text())
        pid, begun = int(written["pid"]), written["started_at"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return pid if begun is not None and started_at(pid) == begun else None
