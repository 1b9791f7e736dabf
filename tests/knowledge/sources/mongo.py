"""A server that speaks MongoDB's wire protocol as it is published: OP_MSG alone, one database.

It is a contract and no MongoDB: it answers hello, SCRAM-SHA-256, find, getMore and killCursors,
sorts and compares what stands in documents, and refuses as a server does.
"""

import base64
import hashlib
import hmac
import itertools
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import bson

_HEADER: Final = struct.Struct("<iiii")
_OP_MSG: Final = 2013
_OP_QUERY: Final = 2004
_OP_REPLY: Final = 1
_ITERATIONS: Final = 4096
Document = dict[str, Any]


class Refused(Exception):
    """What a command is refused with."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.answer = {"ok": 0.0, "errmsg": message, "code": code, "codeName": name}


class Mongo:
    """One server, on a loopback port.

    Attributes:
        collections: what is in it, by name.
        asked: the commands that came in, of those that read.
        refuse: with what the next ``find`` is refused.
    """

    def __init__(self, user: str, password: str) -> None:
        self.collections: dict[str, list[Document]] = {}
        self.asked: list[Document] = []
        self.refuse: Refused | None = None
        self._user = user
        self._password = password
        self._cursors: dict[int, list[Document]] = {}
        self._numbers = itertools.count(7)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Breaks off every connection, and what was read over it is not read on over another."""
        self._cursors.clear()
        for client in list(self._open):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        talk = _Talk(self)
        self._open.add(client)
        with client, suppress(OSError, EOFError):
            while True:
                length, request, _, code = _HEADER.unpack(_exactly(client, _HEADER.size))
                body = _exactly(client, length - _HEADER.size)
                client.sendall(talk.reply(request, code, body))
        self._open.discard(client)

    def find(self, command: Document) -> Document:
        """The first batch of what a filter finds, in order."""
        self.asked.append(command)
        if self.refuse is not None:
            refusal, self.refuse = self.refuse, None
            raise refusal
        rows = [
            row
            for row in self.collections.get(command["find"], [])
            if _matches(row, command.get("filter", {}))
        ]
        for name, _ in reversed(list(command.get("sort", {}).items())):
            rows.sort(key=lambda row: row[name])
        shown = [n for n, wanted in command["projection"].items() if wanted]
        rows = [{n: row[n] for n in shown if n in row} for row in rows[: command.get("limit")]]
        return self._batch(rows, command, next(self._numbers), "firstBatch")

    def more(self, command: Document) -> Document:
        """The next batch of a cursor."""
        self.asked.append(command)
        rows = self._cursors.pop(command["getMore"], None)
        if rows is None:
            raise Refused(43, "CursorNotFound", "cursor id not found")
        return self._batch(rows, command, command["getMore"], "nextBatch")

    def _batch(self, rows: list[Document], command: Document, number: int, name: str) -> Document:
        size = command.get("batchSize", 101)
        if rows[size:]:
            self._cursors[number] = rows[size:]
        at = number if rows[size:] else 0
        return {"cursor": {"id": bson.Int64(at), "ns": "shop.tickets", name: rows[:size]}}

    def password_of(self, user: str) -> str:
        if user != self._user:
            raise Refused(18, "AuthenticationFailed", "Authentication failed.")
        return self._password


class _Talk:
    """One connection: who it is, and what it may."""

    def __init__(self, server: Mongo) -> None:
        self._server = server
        self._scram: Callable[[str], Document] | None = None
        self._known = False

    def reply(self, request: int, code: int, body: bytes) -> bytes:
        if code == _OP_QUERY:
            # The first hello may come in the old way.
            payload = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self._hello({}))
            return _framed(request, _OP_REPLY, payload)
        assert code == _OP_MSG, code
        assert body[4] == 0, "one section, a document"
        command = bson.decode(body[5:])
        try:
            answer = {"ok": 1.0, **self._answer(command)}
        except Refused as refusal:
            answer = refusal.answer
        return _framed(request, _OP_MSG, b"\0\0\0\0\0" + bson.encode(answer))

    def _answer(self, command: Document) -> Document:
        name = next(iter(command))
        open_to_all: Mapping[str, Callable[[Document], Document]] = {
            "hello": self._hello,
            "isMaster": self._hello,
            "ismaster": self._hello,
            "ping": lambda _command: {},
            "endSessions": lambda _command: {},
            "saslStart": self._begin,
            "saslContinue": self._go_on,
        }
        if name in open_to_all:
            return open_to_all[name](command)
        if not self._known:
            raise Refused(13, "Unauthorized", f"Command {name} requires authentication")
        of_users = {"find": self._server.find, "getMore": self._server.more}
        if name in of_users:
            return of_users[name](command)
        if name == "killCursors":
            return {"cursorsKilled": command["cursors"]}
        raise Refused(59, "CommandNotFound", f"no such command: '{name}'")

    def _hello(self, _command: Document) -> Document:
        return {
            "isWritablePrimary": True,
            "ismaster": True,
            "helloOk": True,
            "maxBsonObjectSize": 16 * 1024 * 1024,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "saslSupportedMechs": ["SCRAM-SHA-256"],
            "readOnly": False,
            "ok": 1.0,
        }

    def _begin(self, command: Document) -> Document:
        """RFC 5802's first messages."""
        assert command["mechanism"] == "SCRAM-SHA-256"
        bare = command["payload"].decode()[3:]
        user, nonce = (part[2:] for part in bare.split(",", 1))
        salt = secrets.token_bytes(16)
        first = f"r={nonce}{secrets.token_hex(8)},s={_text(salt)},i={_ITERATIONS}"
        password = self._server.password_of(user)
        self._scram = lambda final: self._check(password, salt, bare, first, final)
        return {"conversationId": 1, "done": False, "payload": first.encode()}

    def _go_on(self, command: Document) -> Document:
        assert self._scram is not None
        return self._scram(command["payload"].decode())

    def _check(self, password: str, salt: bytes, bare: str, first: str, final: str) -> Document:
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
        client_key = _hmac(salted, b"Client Key")
        stored = hashlib.sha256(client_key).digest()
        unproven, proof = final.rsplit(",p=", 1)
        said = f"{bare},{first},{unproven}".encode()
        expected = bytes(a ^ b for a, b in zip(client_key, _hmac(stored, said), strict=True))
        if base64.b64decode(proof) != expected:
            raise Refused(18, "AuthenticationFailed", "Authentication failed.")
        self._known = True
        signature = _hmac(_hmac(salted, b"Server Key"), said)
        return {"conversationId": 1, "done": True, "payload": f"v={_text(signature)}".encode()}


def _matches(row: Document, chosen: Document) -> bool:
    return all(_matches_one(row, name, wanted) for name, wanted in chosen.items())


def _matches_one(row: Document, name: str, wanted: Any) -> bool:
    if name in ("$and", "$or"):
        return (all if name == "$and" else any)(_matches(row, part) for part in wanted)
    if name.startswith("$"):
        raise Refused(2, "BadValue", f"unknown top level operator: {name}")
    if not isinstance(wanted, dict):
        return bool(row.get(name) == wanted)
    ((operator, bound),) = wanted.items()
    value = row.get(name)
    if value is None:
        return False
    return bool(value >= bound if operator == "$gte" else value > bound)


def _framed(request: int, code: int, payload: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(payload), 0, request, code) + payload


def _exactly(client: socket.socket, count: int) -> bytes:
    read = b""
    while len(read) < count:
        more = client.recv(count - len(read))
        if not more:
            raise EOFError
        read += more
    return read


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
