"""``python -m portal.web``: the web process."""

import argparse
import asyncio
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portal.core.env import EnvironmentFault, env


class _GatheringTransport:
    """A transport whose writes of one turn of the event loop leave in one piece.

    The server writes head and body apart; each system call costs as much as making the answer,
    and each piece wakes the caller.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))


class Protocol(HttpToolsProtocol):
    """HTTP over a transport that gathers writes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        gathering = _GatheringTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, gathering))


def main() -> None:
    parser = argparse.ArgumentParser(prog="portal.web", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        env().database_url(env().freehold_database_role)
    except EnvironmentFault as fault:
        raise SystemExit(str(fault)) from None
    uvicorn.run(
        "portal.asgi:create_app",
        factory=True,
        host=arguments.host,
        port=arguments.port,
        loop="uvloop",
        http=Protocol,
        ws="none",
        backlog=2048,
        access_log=False,
        log_config=None,
        # The portal decides itself which proxies it believes.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(env().drain_seconds),
    )


if __name__ == "__main__":
    main()
