"""The other ranks of a tensor-parallel group, as rank 0 sees them: processes that it owns."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

import inference
from inference.engines.torch_batch.calls import Join, Loaded, Ready, ToLead, ToRank
from inference.engines.torch_batch.group import abort_group
from inference.engines.wire import LoadRefused, frames, send
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

_ROOT = Path(inference.__file__).resolve().parents[1]
_EXIT_SECONDS = 10.0
_REASON_SECONDS = 2.0

Answer = TypeVar("Answer", Ready, Loaded)


class RankLost(Exception):
    """A rank has ended, or a step has failed on one: the group is no longer of one mind."""


class _Rank:
    """One process, and the last it said."""

    def __init__(self, join: Join) -> None:
        self.number = join.rank
        self.answer: ToLead | None = None
        self.sock, theirs = socket.socketpair()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        module = "inference.engines.torch_batch.follower"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )
        send(self.sock, join)

    def end(self) -> int:
        """Wait for its end, which has begun; returns its status."""
        try:
            return self.process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Ranks:
    """Starts a process for each of ``joins``, and ends them when it is closed.

    Args:
        on_loss: called on another thread when a rank has ended that should not have.
    """

    def __init__(self, joins: Sequence[Join], *, on_loss: Callable[[], None]) -> None:
        self._on_loss = on_loss
        self._changed = threading.Condition()
        self._closing = False
        self._loss: str | None = None
        self._ranks: list[_Rank] = []
        self._readers: list[threading.Thread] = []
        try:
            for join in joins:
                self._add(_Rank(join))
        except BaseException:
            self.close()
            raise

    def _add(self, rank: _Rank) -> None:
        name = f"rank-{rank.number}"
        reader = threading.Thread(target=self._read, args=(rank,), name=name, daemon=True)
        self._ranks.append(rank)
        self._readers.append(reader)
        reader.start()

    @property
    def lost(self) -> bool:
        """Whether the group can't go on."""
        return self._loss is not None

    def check(self) -> None:
        """Raises ``RankLost`` if the group can't go on."""
        if self._loss is not None:
            raise RankLost(self._loss)

    def gather(self, kind: type[Answer]) -> list[Answer]:
        """The next answer of every rank; blocks until they are there.

        Raises:
            PortalError: a rank could not load its part.
            RankLost: a rank has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._refusal() or self._loss or self._all_answered())
            refusal = self._refusal()
            if refusal is not None:
                raise PortalError(refusal.message, code=refusal.code, status=refusal.status)
            self.check()
            answers = [msgspec.convert(rank.answer, kind) for rank in self._ranks]
            for rank in self._ranks:
                rank.answer = None
            return answers

    def _refusal(self) -> LoadRefused | None:
        answers = (rank.answer for rank in self._ranks)
        return next((a for a in answers if isinstance(a, LoadRefused)), None)

    def _all_answered(self) -> bool:
        return all(rank.answer is not None for rank in self._ranks)

    def tell(self, message: ToRank) -> None:
        """Tell every rank; only one thread may at a time.

        Raises:
            RankLost: a rank has ended.
        """
        self.check()
        with self.together():
            for rank in self._ranks:
                send(rank.sock, message)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all ranks do at once: if it fails here, the others wait in vain for this one."""
        try:
            yield
        except (RuntimeError, OSError) as fault:
            with self._changed:
                # A rank that has ended is why, where that is so.
                self._changed.wait_for(lambda: self._loss, _REASON_SECONDS)
                self._loss = self._loss or f"{type(fault).__name__}: {fault}"
            raise RankLost(self._loss) from fault

    def close(self) -> None:
        """End the ranks, whatever they are at."""
        with self._changed:
            self._closing = True
        for rank in self._ranks:
            try:
                rank.sock.shutdown(socket.SHUT_WR)
            except OSError:
                log.debug("rank.already_gone", rank=rank.number)
        for rank, reader in zip(self._ranks, self._readers, strict=True):
            reader.join(_EXIT_SECONDS)
            if reader.is_alive():
                rank.process.kill()
                reader.join()

    def _read(self, rank: _Rank) -> None:
        decoder = msgspec.msgpack.Decoder(ToLead)
        for frame in frames(rank.sock):
            with self._changed:
                rank.answer = decoder.decode(frame)
                self._changed.notify_all()
        status = rank.end()
        rank.sock.close()
        with self._changed:
            if self._closing:
                return
            self._loss = self._loss or f"rank {rank.number} ended with status {status}"
            self._changed.notify_all()
        log.error("rank.lost", rank=rank.number, status=status)
        # A step that waits for it must not wait until the group's patience is over.
        abort_group()
        self._on_loss()
