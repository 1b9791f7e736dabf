"""Reads the gateway's return stream: one connection, one blocking XREAD after another.

A client library costs more than the reading itself here, so the few commands are spoken
directly; the replies are parsed by hiredis.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import msgspec
import structlog

from inference.returns import ALIVE_TTL_SECONDS, Return, alive_key, decode_returns, stream_key

log = structlog.get_logger(__name__)

_BLOCK_MS: Final = 1000
_RECONNECT_SECONDS: Final = 0.1
# A broker that says nothing for so long, beyond the blocking read, is gone without a farewell.
_SILENCE_SECONDS: Final = 4.0
_READ_BYTES: Final = 65_536


class ReturnReader:
    """Delivers every event of the stream until it is stopped; survives a broker that restarts."""

    def __init__(self, url: str, gateway: str, deliver: Callable[[list[Return]], None]) -> None:
        self._url = url
        self._gateway = gateway
        self._deliver = deliver
        self._last = b"0-0"
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

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
            except (OSError, hiredis.HiredisError, asyncio.IncompleteReadError) as fault:
                if self.connected:
                    log.warning("returns.disconnected", error=str(fault))
                self._connected.clear()
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _session(self) -> None:
        wire = await _Wire.open(self._url)
        try:
            self._connected.set()
            alive = (b"SET", alive_key(self._gateway), b"1", b"EX", str(ALIVE_TTL_SECONDS))
            key = stream_key(self._gateway)
            beat = 0.0
            loop = asyncio.get_running_loop()
            while True:
                if loop.time() >= beat:
                    # On the same connection: a reader that is stuck does not look alive.
                    await wire.call(*alive)
                    beat = loop.time() + 1
                entries = await wire.call(
                    b"XREAD",
                    b"COUNT",
                    b"256",
                    b"BLOCK",
                    str(_BLOCK_MS),
                    b"STREAMS",
                    key,
                    self._last,
                )
                for entry_id, fields in entries[0][1] if entries else ():
                    self._last = entry_id
                    self._take(fields[1])
        finally:
            wire.close()

    def _take(self, entry: bytes) -> None:
        try:
            events = decode_returns(entry)
        except msgspec.MsgspecError as fault:
            # A worker of another release: its jobs' callers ask PostgreSQL.
            log.error("returns.unreadable", error=str(fault))
            return
        self._deliver(events)


class _Wire:
    """A connection that speaks RESP, one command at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = hiredis.Reader()

    @classmethod
    async def open(cls, url: str) -> "_Wire":
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        if parts.scheme == "unix":
            streams = await asyncio.open_unix_connection(unquote(parts.path))
            database = query.get("db", ["0"])[0]
        else:
            streams = await asyncio.open_connection(
                parts.hostname or "localhost",
                parts.port or 6379,
                ssl=parts.scheme == "rediss" or None,
            )
            database = query.get("db", [parts.path.strip("/") or "0"])[0]
        wire = cls(*streams)
        if parts.password:
            await wire.call(b"AUTH", unquote(parts.username or "default"), unquote(parts.password))
        if database != "0":
            await wire.call(b"SELECT", database)
        return wire

    async def call(self, *arguments: bytes | str) -> Any:
        """One command's reply.

        Raises:
            OSError, hiredis.HiredisError: the connection or the server failed, or is silent.
        """
        self._writer.write(hiredis.pack_command(arguments))  # type: ignore[arg-type]
        while (reply := self._parser.gets()) is False:
            async with asyncio.timeout(_SILENCE_SECONDS):
                data = await self._reader.read(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the broker closed the connection")
            self._parser.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise ConnectionError(str(reply))
        return reply

    def close(self) -> None:
        self._writer.close()
