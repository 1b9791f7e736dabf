"""Redis's protocol spoken directly, for the few commands of the data plane's hot path.

A client library costs such a path more than the commands themselves. ``RespConnection`` and
``RespLink`` are for event loops, ``RespClient`` is for threads. Replies are parsed by hiredis.
"""

import asyncio
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

FAULTS: Final = (OSError, TimeoutError, hiredis.HiredisError)
"""What a call raises when the broker is away, is silent or refuses the command."""

Command = Sequence[bytes | str | int | float]

_CONNECT_SECONDS: Final = 5.0
# A lost connection is made anew at once, then after these pauses: a broker that is restarted is
# back by then.
_RETRY_SECONDS: Final = (0.0, 0.05, 0.2)
_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is, and how one logs in; its text form shows no password.

    Attributes:
        path: of the Unix socket; empty for TCP.
        login: the commands that a fresh connection begins with.
    """

    path: str
    host: str
    port: int
    tls: bool
    login: tuple[Command, ...]

    def __repr__(self) -> str:
        return f"Address({self.path or f'{self.host}:{self.port}'})"

    @classmethod
    def of(cls, url: str) -> Self:
        """The address in a ``redis://``, ``rediss://`` or ``unix://`` URL.

        Raises:
            ValueError: it has another scheme; the message does not show the URL, which may hold
                a password.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("the broker's URL must begin with redis://, rediss:// or unix://")
        path = unquote(parts.path) if parts.scheme == "unix" else ""
        database = parse_qs(parts.query).get("db", ["" if path else parts.path.strip("/")])[0]
        login: list[Command] = []
        if parts.password:
            login.append(("AUTH", unquote(parts.username or "default"), unquote(parts.password)))
        if database not in ("", "0"):
            login.append(("SELECT", database))
        host, port = parts.hostname or "localhost", parts.port or 6379
        return cls(path, host, port, parts.scheme == "rediss", tuple(login))


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

        Raises:
            OSError, hiredis.HiredisError: it can't be made, or the login is refused.
        """
        at, loop = Address.of(url), asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_SECONDS):
            if at.path:
                _, connection = await loop.create_unix_connection(cls, at.path)
            else:
                _, connection = await loop.create_connection(
                    cls, at.host, at.port, ssl=at.tls or None
                )
            try:
                for command in at.login:
                    await connection.send(*command)
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
        reply = self.send(*arguments)
        # Cheaper than asyncio.timeout, which costs more than the command.
        guard = reply.get_loop().call_later(timeout_s, self._give_up, reply)
        try:
            return await reply
        finally:
            guard.cancel()

    def _give_up(self, reply: "asyncio.Future[Any]") -> None:
        if not reply.done():
            reply.set_exception(TimeoutError("the broker does not answer"))
        self.close()

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

    A command whose connection was lost is sent again, a few times within a quarter of a second:
    use it for commands that may be done twice.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_s: longest wait for a reply, in seconds.

    Attributes:
        opened: connections made so far.

    Raises:
        ValueError: the URL has another scheme.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        Address.of(url)
        self._url = url
        self._timeout_s = timeout_s
        self._connection: RespConnection | None = None
        self._opening = asyncio.Lock()
        self.opened = 0

    async def call(self, *arguments: bytes | str | int | float) -> Any:
        """One command's reply.

        Raises:
            OSError, hiredis.HiredisError: see ``FAULTS``; the command may have taken effect.
        """
        for pause in _RETRY_SECONDS:
            try:
                return await self._call(arguments)
            except TimeoutError:
                raise
            except OSError:
                await asyncio.sleep(pause)
        return await self._call(arguments)

    async def _call(self, arguments: Command) -> Any:
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._open()
        return await connection.call(*arguments, timeout_s=self._timeout_s)

    async def _open(self) -> RespConnection:
        async with self._opening:
            if self._connection is None or self._connection.closed:
                self._connection = await RespConnection.open(self._url)
                self.opened += 1
            return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class RespClient:
    """A blocking connection that is made when it is needed, and anew after it has failed.

    Threads may share it; one that waits in a blocking command holds up the others. Commands are
    sent again as ``RespLink`` does.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_s: longest wait for the connection or a reply, in seconds; a blocking command
            must ask for less.

    Raises:
        ValueError: the URL has another scheme.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        self._at = Address.of(url)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._parser = hiredis.Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def call(self, *arguments: bytes | str | int | float) -> Any:
        """One command's reply.

        Raises:
            OSError, hiredis.HiredisError: see ``FAULTS``; the command may have taken effect.
        """
        return self.call_all([arguments])[0]

    def call_all(self, commands: Sequence[Command]) -> list[Any]:
        """The replies of commands that are sent together; all are done even if one is refused.

        Raises:
            OSError, hiredis.HiredisError: as ``call``.
        """
        with self._lock:
            for pause in _RETRY_SECONDS:
                try:
                    return self._exchange(commands)
                except TimeoutError:
                    raise
                except OSError:
                    time.sleep(pause)
            return self._exchange(commands)

    def close(self) -> None:
        """Closes the connection; the next call makes another."""
        with self._lock:
            self._drop()

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        try:
            connected = self._socket or self._connect()
            connected.sendall(b"".join(hiredis.pack_command(tuple(c)) for c in commands))  # type: ignore[arg-type]
            replies = [self._reply(connected) for _ in commands]
        except BaseException:
            # An answer that is still to come would be taken for another command's.
            self._drop()
            raise
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise Refused(str(reply))
        return replies

    def _reply(self, connected: socket.socket) -> Any:
        while (reply := self._parser.gets()) is False:
            data = connected.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the connection to the broker was lost")
            self._parser.feed(data)
        return reply

    def _connect(self) -> socket.socket:
        at = self._at
        if at.path:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connected.settimeout(self._timeout_s)
            self._socket = connected
            connected.connect(at.path)
        else:
            connected = socket.create_connection((at.host, at.port), self._timeout_s)
            self._socket = connected
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if at.tls:
                context = ssl.create_default_context()
                connected = context.wrap_socket(connected, server_hostname=at.host)
                self._socket = connected
        self._parser = hiredis.Reader()
        for command in at.login:
            connected.sendall(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
            reply = self._reply(connected)
            if isinstance(reply, hiredis.ReplyError):
                raise Refused(str(reply))
        return connected

    def _drop(self) -> None:
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()
