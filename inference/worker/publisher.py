"""Sends tokens to the gateways: whatever gathered during the last write goes in the next.

Text is published before its job is settled, the end after: an answer that is charged has been
sent, and one whose end is lost can be asked for in PostgreSQL.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from inference.engines.base import TokenLogprob
from inference.returns import (
    FIELD,
    STREAM_LENGTH,
    STREAM_TTL_SECONDS,
    End,
    Part,
    Return,
    Text,
    encode_returns,
    stream_key,
)
from inference.worker.running import RunningJob
from portal.core.resp import FAULTS, Command, RespClient

log = structlog.get_logger(__name__)

_EXPIRE_EVERY_SECONDS: Final = 10.0


class Detail(msgspec.Struct, frozen=True):
    """What a piece of a detailed answer tells beside its text; see ``Part``."""

    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    reason: str = ""


class Piece(msgspec.Struct, frozen=True):
    """Text of a job to be sent; ``last`` if the job has ended with it."""

    job: RunningJob
    text: str
    tokens: int
    last: bool = False
    detail: Detail | None = None


class Ended(msgspec.Struct, frozen=True):
    """A settled job's end, to be told to its gateway."""

    gateway: str
    end: End


class Publisher:
    """One thread that writes to the return streams.

    Args:
        on_sent: called with each batch of pieces that reached the broker.
        on_failed: called with each batch that did not.
    """

    def __init__(
        self,
        client: RespClient,
        *,
        on_sent: Callable[[list[Piece]], None],
        on_failed: Callable[[list[Piece]], None],
    ) -> None:
        self._client = client
        self._on_sent = on_sent
        self._on_failed = on_failed
        self._outbox: deque[Piece | Ended] = deque()
        self._filled = threading.Event()
        self._stopped = False
        self._expires: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Sends what is left, then ends the thread."""
        self._stopped = True
        self._filled.set()
        self._thread.join(timeout=10)
        self._client.close()

    def send(self, items: list[Piece] | list[Ended]) -> None:
        """Hands over pieces or ends, in order."""
        self._outbox.extend(items)
        self._filled.set()

    def _run(self) -> None:
        while True:
            self._filled.wait()
            self._filled.clear()
            batch: list[Piece | Ended] = []
            while self._outbox:
                batch.append(self._outbox.popleft())
            if batch:
                self._write(batch)
            if self._stopped and not self._outbox:
                return

    def _write(self, batch: list[Piece | Ended]) -> None:
        pieces = [item for item in batch if isinstance(item, Piece)]
        commands = self._commands(self._by_gateway(batch))
        try:
            if commands:
                self._client.call_all(commands)
        except FAULTS as fault:
            log.warning("publish.failed", events=len(batch), error=str(fault))
            self._on_failed(pieces)
            return
        if pieces:
            self._on_sent(pieces)

    def _by_gateway(self, batch: list[Piece | Ended]) -> dict[str, list[Return]]:
        streams: dict[str, list[Return]] = {}
        ahead: dict[str, int] = {}
        for item in batch:
            if isinstance(item, Ended):
                streams.setdefault(item.gateway, []).append(item.end)
                continue
            claim = item.job.claim
            if item.job.lost or not claim.gateway:
                continue
            if not (item.tokens or item.text or item.detail):
                continue
            offset = item.job.published + ahead.get(item.job.engine_id, 0)
            ahead[item.job.engine_id] = offset - item.job.published + item.tokens
            streams.setdefault(claim.gateway, []).append(_text(item, offset))
        return streams

    def _commands(self, streams: dict[str, list[Return]]) -> list[Command]:
        now = time.monotonic()
        commands: list[Command] = []
        for gateway, events in streams.items():
            key = stream_key(gateway)
            entry = encode_returns(events)
            commands.append(("XADD", key, "MAXLEN", "~", STREAM_LENGTH, "*", FIELD, entry))
            if now >= self._expires.get(gateway, 0.0):
                # A gateway that died reads no more: its stream must not stay.
                commands.append(("EXPIRE", key, STREAM_TTL_SECONDS))
                self._expires[gateway] = now + _EXPIRE_EVERY_SECONDS
        if len(self._expires) > 1000:
            self._expires = {g: t for g, t in self._expires.items() if t > now}
        return commands


def _text(piece: Piece, offset: int) -> Text:
    claim, detail = piece.job.claim, piece.detail
    if detail is None:
        return Text(claim.id.bytes, claim.fence, offset, piece.tokens, piece.text)
    return Part(
        claim.id.bytes,
        claim.fence,
        offset,
        piece.tokens,
        piece.text,
        detail.choice,
        detail.logprobs,
        detail.reason,
    )
