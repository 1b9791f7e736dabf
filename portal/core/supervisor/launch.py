"""Starting programs so that none outlives the supervisor, and finding those that did."""

import errno
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portal.core.supervisor.faults import Fault, explain
from portal.core.supervisor.layout import started_at

# Marks our own processes in their environment, so that a later start recognises leftovers.
MARK = "FREEHOLD_SUPERVISED"
DATABASE_USER = "freehold-db"


@dataclass(frozen=True)
class Account:
    """A system user to run as.

    Attributes:
        passes: with it goes the right to enter folders closed to that user, because the
            installation lies in one (root's home, say) whose mode is not ours to change.
    """

    name: str
    uid: int
    gid: int
    passes: bool = False

    def options(self) -> list[str]:
        """setpriv's options that run a command as this user."""
        words = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if self.passes:
            # access(2), by which initdb looks for its neighbour, sets capabilities aside for
            # everyone but root, unless this bit is set.
            words.append("--securebits=+no_setuid_fixup")
            return [*words, "--inh-caps=-all,+dac_override", "--ambient-caps=+dac_override"]
        return [*words, "--inh-caps=-all"]


def database_account(paths: Sequence[Path]) -> Account | None:
    """The user whom the database server runs as: none of its own unless we are root.

    Args:
        paths: what that user must be able to reach.

    Raises:
        Fault: the user can't be made, or can't reach a path in any way.
    """
    if os.geteuid() != 0:
        return None
    entry = _system_user()
    plain = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for account in (plain, Account(plain.name, plain.uid, plain.gid, passes=True)):
        if all(_reaches(account, path) for path in paths):
            return account
    raise Fault(
        f"The database runs as the user {DATABASE_USER}, who can't enter {paths[0].parent}: move "
        "the checkout to a folder that others may enter (/opt, say), or run bin/start as an "
        "ordinary user."
    )


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(DATABASE_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
        command += ["--shell", "/usr/sbin/nologin", "--user-group", DATABASE_USER]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        return pwd.getpwnam(DATABASE_USER)
    except (OSError, KeyError, subprocess.CalledProcessError) as error:
        raise Fault(
            f"PostgreSQL refuses to run as root and the user {DATABASE_USER} can't be made: run "
            f"`{' '.join(command)}`, or run bin/start as an ordinary user."
        ) from error


def _reaches(account: Account, path: Path) -> bool:
    probe = ["setpriv", *account.options(), "--", "/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
    return subprocess.run(probe, check=False, capture_output=True, cwd="/").returncode == 0


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    account: Account | None = None,
    die_signal: signal.Signals | None = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to ``log``.

    Args:
        die_signal: what the program gets when the starting thread dies, however it dies;
            None lets it live on.

    Raises:
        Fault: the log can't be opened or the program can't be started.
    """
    words = ["setpriv"]
    if account is not None:
        words += account.options()
    if die_signal is not None:
        words.append(f"--pdeathsig={die_signal.name.removeprefix('SIG')}")
    words += ["--", *argv]
    try:
        with log.open("ab") as out:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                # Ctrl-C reaches the whole foreground group: only the supervisor may hear it.
                start_new_session=True,
            )
    except OSError as error:
        if error.errno == errno.ENOENT and shutil.which("setpriv") is None:
            raise Fault("The program setpriv is missing: apt install util-linux.") from error
        raise explain(error, log) from error


def child_env(data_dir: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the product's own processes: ours, without libpq's variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    env |= {
        "FREEHOLD_DATA_DIR": str(data_dir),
        MARK: str(data_dir),
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    return env | dict(extra or {})


def server_env() -> dict[str, str]:
    """The environment of the embedded servers: what they say must be in English to be read."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def end(pid: int, polite: signal.Signals, patience_s: float) -> None:
    """End a process that need not be a child of ours: politely, then for good."""
    begun = started_at(pid)
    for number, wait_s in ((polite, patience_s), (signal.SIGKILL, 10.0)):
        if begun is None or started_at(pid) != begun:
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + wait_s
        while started_at(pid) == begun and time.monotonic() < deadline:
            time.sleep(0.02)


def processes_where(holds: Callable[[Path], bool]) -> list[int]:
    """Pids of the processes, other than this one, of whose ``/proc`` folder ``holds`` is true."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if holds(folder):
                found.append(int(folder.name))
        except OSError:  # Gone meanwhile, or another user's: not ours in either case.
            continue
    return found


def _executable(process: Path, first_word: bytes) -> str:
    """The name of a process's program; by its own account where /proc won't tell us."""
    try:
        return (process / "exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        return Path(os.fsdecode(first_word)).name


def servers_in(folder: Path, executable: str) -> list[int]:
    """Pids of the main processes of servers whose data lie in ``folder``."""

    def holds(process: Path) -> bool:
        words = (process / "cmdline").read_bytes().split(b"\0")
        if _executable(process, words[0]) != executable:
            return False
        if os.fsencode(folder) in words:
            return True
        return (process / "cwd").readlink() == folder

    return processes_where(holds)


def marked(data_dir: Path) -> list[int]:
    """Pids of leftover product processes of this data folder."""
    mark = f"{MARK}={data_dir}".encode()
    return processes_where(lambda p: mark in (p / "environ").read_bytes().split(b"\0"))
