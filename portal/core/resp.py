"""Redis's protocol spoken directly from an event loop, for the data plane's few commands.

A client library costs a hot path more than the commands themselves. Replies are parsed by hiredis.
"""

import asyncio
import socket
from collections import deque
from typing import Any, Final, Self, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

FAULTS: Final = (OSError, TimeoutError, hiredis.HiredisError)
"""What a call raises when the broker is away, is silent or refuses the command."""

_CONNECT_SECONDS: Final = 5.0


def scheme_of(url: str) -> str:
    """The URL's scheme: ``redis``, ``rediss`` or ``unix``.

    Raises:
        ValueError: it has another; the message does not show the URL, which may hold a password.
    """
    scheme = urlsplit(url).scheme
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError("the broker's URL must begin with redis://, rediss:// or unix://")
    return scheme


class Refused(hiredis.HiredisError):
    """The server answered a command with an error."""


class RespConnection(asyncio.Protocol):
    """One connection; commands are answered in the order they were sent."""

    def __init__(self) -> None:
        self._parser = hiredis.Reader()
        self._awaited: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, url: str) -> Self:
        """A connection that has logged in and selected its database.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``.

        Raises:
            OSError, hiredis.HiredisError: it can't be made, or the login is refused.
        """
        scheme, parts = scheme_of(url), urlsplit(url)
        query, loop = parse_qs(parts.query), asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_SECONDS):
            if scheme == "unix":
                _, connection = await loop.create_unix_connection(cls, unquote(parts.path))
                database = query.get("db", ["0"])[0]
            else:
                _, connection = await loop.create_connection(
                    cls,
                    parts.hostname or "localhost",
                    parts.port or 6379,
                    ssl=scheme == "rediss" or None,
                )
                database = query.get("db", [parts.path.strip("/") or "0"])[0]
            try:
                if parts.password:
                    user = unquote(parts.username or "default")
                    await connection.send("AUTH", user, unquote(parts.password))
                if database != "0":
                    await connection.send("SELECT", database)
            except BaseException:
                connection.close()
                raise
        return connection

    @property
    def closed(self) -> bool:
        return self._transport is None

    def send(self, *arguments: bytes | str | int | float) -> "asyncio.Future[Any]":
        """Sends one command; await what comes back for its reply.

        Raises:
            ConnectionError: the connection is closed. What is under way when it is lost fails so.
        """
        if self._transport is None:
            raise ConnectionResetError("the connection to the broker is closed")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._awaited.append(reply)
        self._transport.write(hiredis.pack_command(arguments))  # type: ignore[arg-type]
        return reply

    async def call(self, *arguments: bytes | str | int | float, timeout_s: float) -> Any:
        """One command's reply; silence for ``timeout_s`` closes the connection.

        Raises:
            OSError, hiredis.HiredisError: the connection failed, is silent, or the server refused.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self.send(*arguments)
        except TimeoutError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection; whoever waits for a reply is told."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        while self._awaited:
            reply = self._awaited.popleft()
            if not reply.done():
                reply.set_exception(ConnectionResetError("the connection to the broker was lost"))

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        try:
            while (answer := self._parser.gets()) is not False:
                self._answer(answer)
        except (hiredis.HiredisError, IndexError):
            # Not the protocol, or an answer to nothing: what follows can't be trusted.
            self.close()

    def _answer(self, answer: Any) -> None:
        reply = self._awaited.popleft()
        if reply.done():
            return
        if isinstance(answer, hiredis.ReplyError):
            reply.set_exception(Refused(str(answer)))
        else:
            reply.set_result(answer)


class RespLink:
    """A connection that is made when it is needed, and anew after it has failed.

    A command whose connection was lost is sent once more: use it for commands that may be done
    twice.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_s: longest wait for a reply, in seconds.

    Raises:
        ValueError: the URL has another scheme.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        scheme_of(url)
        self._url = url
        self._timeout_s = timeout_s
        self._connection: RespConnection | None = None
        self._opening = asyncio.Lock()

    async def call(self, *arguments: bytes | str | int | float) -> Any:
        """One command's reply.

        Raises:
            OSError, hiredis.HiredisError: see ``FAULTS``; the command may have taken effect.
        """
        try:
            return await self._call(arguments)
        except ConnectionError:
            return await self._call(arguments)

    async def _call(self, arguments: tuple[bytes | str | int | float, ...]) -> Any:
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._open()
        return await connection.call(*arguments, timeout_s=self._timeout_s)

    async def _open(self) -> RespConnection:
        async with self._opening:
            if self._connection is None or self._connection.closed:
                self._connection = await RespConnection.open(self._url)
            return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
