"""A balancer in front of several web processes, as an operator's own: bytes in, bytes out."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence
from typing import Self

_PIECE = 1 << 16


class Balancer:
    """Hands each connection to the next address that accepts it; a context manager.

    Args:
        host: of the balancer and of what it stands before.
        ports: of the web processes.
    """

    def __init__(self, host: str, ports: Sequence[int]) -> None:
        self.host = host
        self.port = 0
        self._ports = ports
        self._turns = itertools.cycle(range(len(ports)))
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, self.host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._over.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is not None:
            there_reader, there_writer = upstream
            # At the end connections are cut, which the streams' own call-back takes for a fault.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
        writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        # Of its own turn on: if all took turns together, one could get the same port twice.
        first = next(self._turns)
        for port in (*self._ports[first:], *self._ports[:first]):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(self.host, port)
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()
