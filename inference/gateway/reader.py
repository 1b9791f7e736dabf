"""Reads the gateway's return stream: one connection, one blocking XREAD after another."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from inference.returns import ALIVE_TTL_SECONDS, Return, alive_key, decode_returns, stream_key
from portal.core.resp import FAULTS, RespConnection

log = structlog.get_logger(__name__)

_BLOCK_MS: Final = 1000
_RECONNECT_SECONDS: Final = 0.1
# A broker that says nothing for so long, the blocking read included, is gone without a farewell.
_SILENCE_SECONDS: Final = 4.0


class ReturnReader:
    """Delivers every event of the stream until it is stopped; survives a broker that restarts.

    Attributes:
        opened: connections made so far.
    """

    def __init__(self, url: str, gateway: str, deliver: Callable[[list[Return]], None]) -> None:
        self._url = url
        self._gateway = gateway
        self._deliver = deliver
        self._last = b"0-0"
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self.opened = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="return-reader")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def _run(self) -> None:
        while True:
            try:
                await self._session()
            except FAULTS as fault:
                if self.connected:
                    log.warning("returns.disconnected", error=str(fault))
                self._connected.clear()
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _session(self) -> None:
        connection = await RespConnection.open(self._url)
        try:
            self._connected.set()
            self.opened += 1
            key = stream_key(self._gateway)
            beat = 0.0
            loop = asyncio.get_running_loop()
            while True:
                if loop.time() >= beat:
                    # On the same connection: a reader that is stuck does not look alive.
                    await self._say_alive(connection)
                    await self._forget_read(connection, key)
                    beat = loop.time() + 1
                read = ("XREAD", "COUNT", 256, "BLOCK", _BLOCK_MS, "STREAMS", key, self._last)
                entries = await connection.call(*read, timeout_s=_SILENCE_SECONDS)
                for entry_id, fields in entries[0][1] if entries else ():
                    self._last = entry_id
                    self._take(fields[1])
        finally:
            connection.close()

    async def _say_alive(self, connection: RespConnection) -> None:
        alive = ("SET", alive_key(self._gateway), b"1", "EX", ALIVE_TTL_SECONDS)
        await connection.call(*alive, timeout_s=_SILENCE_SECONDS)

    async def _forget_read(self, connection: RespConnection, key: str) -> None:
        """What has been read is read by nobody else, and many vectors are megabytes."""
        forget = ("XTRIM", key, "MINID", "~", self._last)
        await connection.call(*forget, timeout_s=_SILENCE_SECONDS)

    def _take(self, entry: bytes) -> None:
        try:
            events = decode_returns(entry)
        except msgspec.MsgspecError as fault:
            # A worker of another release: its jobs' callers ask PostgreSQL.
            log.error("returns.unreadable", error=str(fault))
            return
        self._deliver(events)
