"""What to know about the web address: whether it is free, and whether it answers."""

import errno
import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

from portal.core.supervisor.faults import Fault


def require_free(host: str, port: int) -> None:
    """Raise Fault unless this address can be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, OverflowError) as error:
        raise Fault(f"{host} port {port} is not an address: give another --host.") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise _address_fault(error, host, port) from error


def _address_fault(error: OSError, host: str, port: int) -> Fault:
    if error.errno == errno.EADDRINUSE:
        return Fault(
            f"Port {port} on {host} is taken by another program: choose a free one, "
            f"for example `bin/start --port {port + 1 if port < 65535 else 8000}`."
        )
    if error.errno == errno.EACCES:
        return Fault(f"Port {port} is for root only: choose one above 1023 with --port.")
    return Fault(
        f"{host} port {port} can't be listened on ({error.strerror}): give another --host."
    )


@dataclass(frozen=True)
class Answer:
    """What the readiness page said; ``awaited`` names the checks that are not yet passed."""

    ready: bool
    awaited: tuple[str, ...]


def ask(host: str, port: int) -> Answer:
    """Ask ``/health/ready`` once; an address that doesn't answer awaits the web process."""
    connection = http.client.HTTPConnection(local_name(host), port, timeout=5)
    try:
        connection.request("GET", "/health/ready", headers={"Host": f"127.0.0.1:{port}"})
        response = connection.getresponse()
        body = response.read(1 << 16)
    except (OSError, http.client.HTTPException):
        return Answer(False, ("web",))
    finally:
        connection.close()
    return Answer(response.status == 200, _awaited(body))


def _awaited(body: bytes) -> tuple[str, ...]:
    try:
        checks: Any = json.loads(body)["checks"]
        return tuple(str(name) for name, state in checks.items() if not _passed(state))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def _passed(state: Any) -> bool:
    if isinstance(state, dict):
        return _passed(state.get("ok", state.get("status")))
    return state is True or state == "ok"


def local_name(host: str) -> str:
    """The name by which this machine reaches what listens on ``host``."""
    everywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104
    return everywhere.get(host, host)


def url(host: str, port: int) -> str:
    """The address to show to people."""
    name = local_name(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
