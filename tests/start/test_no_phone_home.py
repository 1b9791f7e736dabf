"""Nothing phones home: the main job without a network, and every attempt to reach one counted."""

import ipaddress
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.start.checkouts import (
    Terminal,
    checkout,
    press_ctrl_c,
    read_until_ready,
    terminal,
)
from tests.start.people import ask, logged_in, open_page
from tests.supervisor.product import free_port

pytestmark = pytest.mark.timeout(600)

PAGES = ("/admin/", "/admin/playground/")
_SYSCALLS = "trace=connect,sendto,sendmsg,sendmmsg"
# As strace writes socket addresses: sin_addr=inet_addr("1.2.3.4"), inet_pton(AF_INET6, "::1", ...).
_ADDRESS = re.compile(r'sin_addr=inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')

# A private network has no interface but a loopback that is down.
_LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""
_ISOLATED = ("unshare", "--net", "--", sys.executable, "-c", _LOOPBACK_UP)
# A network of one's own takes root's rights in full: a container's root may lack them.
CAN_ISOLATE = subprocess.run([*_ISOLATED, "true"], check=False, capture_output=True).returncode == 0


def tracer(log: Path) -> tuple[str, ...]:
    return ("strace", "-f", "--seccomp-bpf", "-qq", "-e", _SYSCALLS, "-e", "signal=none", "-o",
            str(log), "--")  # fmt: skip


def attempts_beyond_loopback(log: Path) -> list[str]:
    """The traced calls that name an address of another machine."""
    found = []
    with log.open(errors="replace") as lines:
        for line in lines:
            for four, six in _ADDRESS.findall(line):
                if not _is_loopback(four or six):
                    found.append(line.rstrip())
    return found


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkout for all: what one test has set up the next one finds."""
    return checkout(tmp_path_factory.mktemp("checkout") / "freehold")


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('192.0.2.1', 9), 0.1)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'?', ('192.0.2.1', 53))",
        "socket.create_connection(('2001:db8::1', 9), 0.1)",
    ],
)
def test_count_of_a_call_to_another_machine_is_one(tmp_path: Path, attempt: str) -> None:
    log = tmp_path / "trace"
    script = f"import socket, contextlib\nwith contextlib.suppress(OSError): {attempt}"
    subprocess.run(
        [*tracer(log), "sh", "-c", '"$@"', "sh", sys.executable, "-c", script], check=True
    )
    assert len(attempts_beyond_loopback(log)) == 1


def main_job(shell: Terminal, port: int) -> None:
    """Start, log in, open pages, ask the model, stop."""
    process = shell.start("--port", str(port))
    read_until_ready(process)
    facts = json.loads((shell.root / "var" / "start.json").read_text())
    with logged_in(facts, "tenant_owner") as browser:
        for page in PAGES:
            loaded = open_page(browser, page)
            assert loaded
            assert [u for u in loaded if urlsplit(u).netloc != urlsplit(facts["url"]).netloc] == []
    assert ask(facts, "Where do you live?").strip()
    assert press_ctrl_c(process) == 0


def test_main_job_reaches_for_no_other_machine(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "trace"
    with terminal(root, tmp_path / "home", *tracer(log)) as shell:
        main_job(shell, free_port())
    traced = log.read_text(errors="replace")
    assert "sa_family=AF_UNIX" in traced
    assert attempts_beyond_loopback(log) == []
    # Telemetry libraries leave a mark in the home folder before they send anything.
    assert list((tmp_path / "home").rglob("*intel*")) == []


if CAN_ISOLATE:
    # The client must be in the same network: so the whole test runs there, by itself.
    def test_main_job_works_without_a_network(root: Path, tmp_path: Path) -> None:
        script = (
            "import sys; from pathlib import Path; "
            "from tests.start.checkouts import terminal; "
            "from tests.start.test_no_phone_home import main_job; "
            "from tests.supervisor.product import free_port\n"
            "with terminal(Path(sys.argv[1]), Path(sys.argv[2])) as shell: "
            "main_job(shell, free_port())"
        )
        words = [sys.executable, "-c", script, str(root), str(tmp_path / "home")]
        done = subprocess.run(
            [*_ISOLATED, *words],
            check=False,
            cwd=Path(__file__).resolve().parents[2],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout
