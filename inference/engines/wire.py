"""Messages between an engine's process and its owner: msgpack in length-prefixed frames."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from inference.engines.base import (
    Done,
    EngineStats,
    Event,
    Failed,
    GenerationRequest,
    Message,
    Sampling,
    Token,
)

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

    id: str
    prompt_ids: list[int]
    messages: list[tuple[str, str]]
    sampling: Sampling

    @classmethod
    def of(cls, request: GenerationRequest) -> "Submit":
        """The message of a request."""
        messages = [(m.role, m.content) for m in request.messages]
        return cls(request.id, list(request.prompt_ids), messages, request.sampling)

    def request(self) -> GenerationRequest:
        """The request of the message."""
        messages = tuple(Message(role, content) for role, content in self.messages)
        return GenerationRequest(self.id, self.prompt_ids, messages, self.sampling)


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


class TokenEvent(msgspec.Struct, frozen=True, tag="t", array_like=True):
    """``Token`` on the wire."""

    request_id: str
    text: str
    tokens: int


class DoneEvent(msgspec.Struct, frozen=True, tag="d", array_like=True):
    """``Done`` on the wire."""

    request_id: str
    reason: Any
    prompt_tokens: int
    completion_tokens: int


class FailedEvent(msgspec.Struct, frozen=True, tag="f", array_like=True):
    """``Failed`` on the wire."""

    request_id: str
    code: str
    message: str


_TO_WIRE: dict[type, Any] = {Token: TokenEvent, Done: DoneEvent, Failed: FailedEvent}
_FROM_WIRE: dict[type, Any] = {wire: event for event, wire in _TO_WIRE.items()}


def to_wire(event: Event) -> TokenEvent | DoneEvent | FailedEvent:
    """An event as it is sent."""
    fields = (getattr(event, name) for name in event.__slots__)
    wired: TokenEvent | DoneEvent | FailedEvent = _TO_WIRE[type(event)](*fields)
    return wired


def from_wire(wired: TokenEvent | DoneEvent | FailedEvent) -> Event:
    """An event as it was before it was sent."""
    event: Event = _FROM_WIRE[type(wired)](*(getattr(wired, n) for n in wired.__struct_fields__))
    return event


class Events(msgspec.Struct, frozen=True, tag="events"):
    """All events of one step, and the engine's state after it."""

    events: list[TokenEvent | DoneEvent | FailedEvent]
    stats: EngineStats


ToChild = Start | Submit | Cancel
ToParent = Loaded | LoadRefused | Events


def send(sock: socket.socket, message: ToChild | ToParent) -> None:
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
