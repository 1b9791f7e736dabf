"""Redis or Valkey: bounded clients, and the doorbell that wakes an inference worker.

The broker only carries wake-ups and token streams. A bell that is lost loses nothing: work is
found in PostgreSQL, and a sweeper rings for queues that still have some.
"""

from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from portal.core.resp import Address, RespClient, RespLink

_RETRIES: Final = 3
_BACKOFF_BASE_S: Final = 0.02
_BACKOFF_CAP_S: Final = 0.5
_HEALTH_CHECK_S: Final = 30

HOT_TTL_MS: Final = 1500
_WAKE_TTL_MS: Final = 5000
_BELL_TTL_MS: Final = 10_000
_BELL_ENTRIES: Final = 64

# KEYS: hot, bell, wake. ARGV: the call's nonce, then the constants. The nonce makes the client's
# own retry after a lost reply answer 'wake' again instead of 'asleep'.
_RING: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('LPUSH', KEYS[2], '1')
  redis.call('LTRIM', KEYS[2], 0, ARGV[4] - 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return 'bell'
end
if redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 'wake'
end
if redis.call('GET', KEYS[3]) == ARGV[1] then
  return 'wake'
end
return 'asleep'
"""


class Ring(StrEnum):
    """What became of a ring.

    ``BELL``: a lingering worker was rung. ``WAKE``: the queue's worker is cold and the caller
    must send one Celery message. ``ASLEEP``: it is cold and somebody is already waking it.
    """

    BELL = "bell"
    WAKE = "wake"
    ASLEEP = "asleep"


def sync_client(url: str, *, timeout_s: float = 5.0) -> redis.Redis:
    """A blocking client with bounded waits and retries that speaks bytes.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_s: longest wait for a connection and for any one reply, in seconds; a blocking
            command must ask for less.

    Raises:
        ValueError: the URL has another scheme.
    """
    retry = Retry(ExponentialWithJitterBackoff(_BACKOFF_CAP_S, _BACKOFF_BASE_S), _RETRIES)
    return redis.Redis.from_url(url, retry=retry, **_options(url, timeout_s))


def _options(url: str, timeout_s: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": _HEALTH_CHECK_S,
        "decode_responses": False,
    }
    if not Address.of(url).path:
        options["socket_keepalive"] = True
    return options


def _hot(queue: str) -> str:
    return f"hot:{queue}"


def _bell(queue: str) -> str:
    return f"bell:{queue}"


def _wake(queue: str) -> str:
    return f"wake:{queue}"


def _ring_command(queue: str) -> list[str | int]:
    keys = [_hot(queue), _bell(queue), _wake(queue)]
    nonce = uuid4().hex
    return ["EVAL", _RING, len(keys), *keys, nonce, _WAKE_TTL_MS, _BELL_TTL_MS, _BELL_ENTRIES]


class Doorbell:
    """Says 'there is work' to the worker of a queue; for threads."""

    def __init__(self, client: RespClient) -> None:
        self._client = client

    def ring(self, queue: str) -> Ring:
        """Ring a lingering worker, or learn whether the caller has to wake a cold one."""
        return Ring(self._client.call(*_ring_command(queue)).decode())

    def wait(self, queue: str, timeout_s: float) -> bool:
        """Wait for a ring; whether one came within ``timeout_s`` (above 0, below the client's)."""
        return self._client.call("BLPOP", _bell(queue), timeout_s) is not None

    def keep_hot(self, queue: str, ttl_ms: int = HOT_TTL_MS) -> None:
        """Say that a worker lingers on the queue for another ``ttl_ms``."""
        self._client.call("SET", _hot(queue), "1", "PX", ttl_ms)

    def go_cold(self, queue: str) -> None:
        """Say that no worker lingers any more; the caller then looks for work once more."""
        self._client.call("DEL", _hot(queue), _wake(queue))


class AsyncDoorbell:
    """Rings from an event loop; the answers are those of ``Doorbell``."""

    def __init__(self, link: RespLink) -> None:
        self._link = link

    async def ring(self, queue: str) -> Ring:
        """Ring a lingering worker, or learn whether the caller has to wake a cold one."""
        answer = await self._link.call(*_ring_command(queue))
        return Ring(answer.decode())
