"""Hearing of work: the doorbell, and the channel on which callers' departures are told."""

import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import redis
import structlog

from inference.returns import cancel_channel
from portal.core.broker import Doorbell
from portal.core.resp import FAULTS, RespClient

log = structlog.get_logger(__name__)

_LINGER_SECONDS: Final = 2.0
_WAIT_SECONDS: Final = 0.5
# With one wait on top it stays below the time that a worker counts as lingering.
_KEEP_HOT_SECONDS: Final = 0.4
_RETRY_SECONDS: Final = 0.2


class BellListener:
    """Answers the doorbell while there is room; goes quiet when nothing has come for a while.

    A worker that is quiet is woken by the Celery task; one that is full does not answer, so that
    another is rung.
    """

    def __init__(
        self,
        client: RespClient,
        queue: str,
        *,
        has_room: Callable[[], bool],
        is_idle: Callable[[], bool],
        on_ring: Callable[[], None],
    ) -> None:
        self._client = client
        self._bell = Doorbell(client)
        self._queue = queue
        self._has_room = has_room
        self._is_idle = is_idle
        self._on_ring = on_ring
        self._woken = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._stopped = threading.Event()
        self._cool_at = 0.0
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Called by the Celery task."""
        self._woken.set()
        self._on_ring()

    def pause(self) -> None:
        """Answers no more until ``resume``, so that another is rung."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()
        self._woken.set()

    def stop(self) -> None:
        self._stopped.set()
        self.resume()
        self._thread.join(timeout=5)
        self._client.close()

    def _run(self) -> None:
        heard_at = time.monotonic()
        while not self._stopped.is_set():
            try:
                self._open.wait()
                if not self._has_room():
                    self._stopped.wait(_WAIT_SECONDS / 50)
                    continue
                self._keep_hot()
                if self._bell.wait(self._queue, _WAIT_SECONDS):
                    heard_at = time.monotonic()
                    self._on_ring()
                elif self._is_idle() and time.monotonic() - heard_at > _LINGER_SECONDS:
                    self._sleep()
                    heard_at = time.monotonic()
            except FAULTS as fault:
                log.warning("bell.failed", error=str(fault))
                self._stopped.wait(_RETRY_SECONDS)
        self._go_cold()

    def _keep_hot(self) -> None:
        now = time.monotonic()
        if now >= self._cool_at:
            self._bell.keep_hot(self._queue)
            self._cool_at = now + _KEEP_HOT_SECONDS

    def _sleep(self) -> None:
        self._woken.clear()
        self._cool_at = 0.0
        self._bell.go_cold(self._queue)
        # A caller may have rung just before the key was gone: look once more.
        self._on_ring()
        self._woken.wait()

    def _go_cold(self) -> None:
        try:
            self._bell.go_cold(self._queue)
        except FAULTS as fault:
            log.warning("bell.failed", error=str(fault))


class CancelListener:
    """Hears which jobs' callers have gone; the durable mark in PostgreSQL backs it up."""

    def __init__(
        self, client: redis.Redis, queue: str, *, on_cancel: Callable[[UUID], None]
    ) -> None:
        self._redis = client
        self._channel = cancel_channel(queue)
        self._on_cancel = on_cancel
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancels", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except (redis.RedisError, OSError) as fault:
                log.warning("cancels.failed", error=str(fault))
                self._stopped.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        with self._redis.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(self._channel)
            while not self._stopped.is_set():
                message = channel.get_message(timeout=_WAIT_SECONDS)
                if message is not None and len(message["data"]) == 16:
                    self._on_cancel(UUID(bytes=message["data"]))
