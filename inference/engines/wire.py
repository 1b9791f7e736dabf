"""Messages between an engine's process and its owner: msgpack in length-prefixed frames."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from inference.engines.base import EngineStats, Event, GenerationRequest

_LENGTH = struct.Struct("<I")
_RECEIVE_BYTES = 1 << 20


class Start(msgspec.Struct, frozen=True, tag="start"):
    """First message to the child: what to serve."""

    name: str
    artefact_dir: str
    context_length: int
    options: dict[str, Any]


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """A request for the child's engine."""

    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End a request of the child's engine."""

    id: str


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The child's engine is ready."""

    stats: EngineStats


class LoadRefused(msgspec.Struct, frozen=True, tag="load_refused"):
    """The child's engine cannot be loaded; the fields are a PortalError's."""

    code: str
    status: int
    message: str


class Events(msgspec.Struct, frozen=True, tag="events"):
    """All events of one step, and the engine's state after it."""

    events: list[Event]
    stats: EngineStats


ToChild = Start | Submit | Cancel
ToParent = Loaded | LoadRefused | Events


def send(sock: socket.socket, message: msgspec.Struct) -> None:
    """Send one message; only one thread may at a time.

    Raises:
        OSError: the other side is gone.
    """
    body = msgspec.msgpack.encode(message)
    sock.sendall(_LENGTH.pack(len(body)) + body)


def frames(sock: socket.socket) -> Iterator[bytes]:
    """The frames that arrive, until the other side closes.

    As many as there are come from one system call: a reader beside a thread that keeps the
    interpreter lock for a whole step gets one chance a step.
    """
    buffer = bytearray()
    while True:
        try:
            received = sock.recv(_RECEIVE_BYTES)
        except ConnectionResetError:
            return
        if not received:
            return
        buffer += received
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + size
            if len(buffer) < end:
                break
            yield bytes(buffer[start + _LENGTH.size : end])
            start = end
        del buffer[:start]
