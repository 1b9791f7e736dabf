"""The load generator: a process of its own, cheap enough not to be what is measured.

``python -m benchmarks.lib.load`` reads a ``Plan`` as JSON from standard input. It keeps so many
connections busy in a closed loop, writes the line ``begin`` when the warm-up is over and then one
line of JSON, a ``Result``.
"""

import asyncio
import contextlib
import math
import re
import resource
import sys
import time
from typing import Final, cast

import httptools
import msgspec
import uvloop

_FIRST_TEXT: Final = re.compile(rb'"content":\s?"(?!")')
_USAGE: Final = re.compile(rb'"completion_tokens":\s?(\d+)')
_TAIL_BYTES: Final = 1024
_RECONNECT_S: Final = 0.01
_PATIENCE_S: Final = 60.0


class Plan(msgspec.Struct, frozen=True):
    """What to send, and for how long.

    Attributes:
        keys: bearer tokens; the connections take turns.
        seconds: length of the measurement; 0 measures ``each`` requests a connection instead.
        warm_up_seconds: what is discarded before (one request a connection where ``each`` counts).
    """

    host: str
    port: int
    path: str
    keys: tuple[str, ...]
    body: str
    connections: int
    seconds: float = 0.0
    each: int = 0
    warm_up_seconds: float = 1.0


class Result(msgspec.Struct, frozen=True):
    """What was measured; times in milliseconds where the name says so.

    Attributes:
        cpu_seconds: processor time of the generator itself.
        tokens: completion tokens of streams, as the usage at their end says, else text events.
    """

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    tokens: int = 0
    ttft_p50_ms: float = 0.0
    ttft_p99_ms: float = 0.0
    error: str = ""

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Tally:
    """What the connections have seen since the measurement began."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.first_texts: list[float] = []
        self.tokens = 0
        self.errors = 0
        self.error = ""

    def fail(self, what: str) -> None:
        self.errors += 1
        self.error = self.error or what[:300]


class Caller(asyncio.Protocol):
    """One kept-alive connection: sends the next request when the last is answered."""

    def __init__(self, request: bytes, run: "Run") -> None:
        self._request = request
        self._run = run
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self._first_at = 0.0
        self._texts = 0
        self._tail = b""
        self._spent = False
        self.left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._spent = True
        if self._sent_at and not self._run.over:
            self._run.tally.fail(f"connection lost: {exc}")
            self._run.replace(self)

    def begin(self, requests: int) -> None:
        """Send this many requests, one after another; -1 goes on until the run is over."""
        self.left = requests
        self._next()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        texts = len(_FIRST_TEXT.findall(body))
        if texts and not self._texts:
            self._first_at = time.perf_counter()
        self._texts += texts
        self._tail = body if len(body) > _TAIL_BYTES else (self._tail + body)[-_TAIL_BYTES:]

    def on_message_complete(self) -> None:
        self._note(time.perf_counter())
        self._sent_at = 0.0
        self._spent = self._spent or not self._parser.should_keep_alive()
        if self._run.over or self.left == 0:
            self._run.finished(self)
        else:
            self._next()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        if self._spent:
            self._run.replace(self)
        else:
            self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if self.left > 0:
            self.left -= 1
        self._texts, self._tail = 0, b""
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def _note(self, now: float) -> None:
        tally = self._run.tally
        status = self._parser.get_status_code()
        if status != 200:
            tally.fail(f"{status}: {self._tail.decode(errors='replace')}")
            return
        tally.latencies.append(now - self._sent_at)
        usage = _USAGE.search(self._tail)
        tally.tokens += int(usage[1]) if usage else self._texts
        if self._texts:
            tally.first_texts.append(self._first_at - self._sent_at)


class Run:
    """All connections of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.tally = Tally()
        self.over = False
        self._callers: set[Caller] = set()
        self._busy: set[Caller] = set()
        self._idle = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def measure(self) -> Result:
        plan = self._plan
        await asyncio.gather(*(self._connect(i) for i in range(plan.connections)))
        if plan.each:
            await self._each(1)
        else:
            self._begin(-1)
            await asyncio.sleep(plan.warm_up_seconds)
        self.tally = Tally()
        print("begin", flush=True)
        began, cpu = time.perf_counter(), _cpu_seconds()
        if plan.each:
            await self._each(plan.each)
        else:
            await asyncio.sleep(plan.seconds)
        seconds, cpu, tally = time.perf_counter() - began, _cpu_seconds() - cpu, self.tally
        self.over, self.tally = True, Tally()
        with contextlib.suppress(TimeoutError):
            # What is under way is answered before the process ends: a hang-up would cancel it.
            async with asyncio.timeout(_PATIENCE_S):
                await self._idle.wait()
        for caller in self._callers:
            caller.close()
        return _result(tally, seconds, cpu)

    async def _each(self, requests: int) -> None:
        self._begin(requests)
        async with asyncio.timeout(_PATIENCE_S):
            await self._idle.wait()

    def _begin(self, requests: int) -> None:
        self._busy |= self._callers
        self._idle.clear()
        for caller in tuple(self._callers):
            caller.begin(requests)

    def finished(self, caller: Caller) -> None:
        """A connection has nothing left to send."""
        self._busy.discard(caller)
        if not self._busy:
            self._idle.set()

    def replace(self, caller: Caller) -> None:
        """Puts a new connection in the place of one that the server has closed."""
        self._callers.discard(caller)
        task = asyncio.create_task(self._reconnect(caller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconnect(self, lost: Caller) -> None:
        await asyncio.sleep(_RECONNECT_S)
        fresh = await self._connect(len(self._callers))
        self._busy.add(fresh)
        self._busy.discard(lost)
        fresh.begin(lost.left)

    async def _connect(self, index: int) -> Caller:
        plan = self._plan
        request = request_bytes(plan, plan.keys[index % len(plan.keys)])
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(
            lambda: Caller(request, self), plan.host, plan.port
        )
        self._callers.add(caller)
        return caller


def request_bytes(plan: Plan, key: str) -> bytes:
    """The plan's request as it goes over the wire."""
    body = plan.body.encode()
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _result(tally: Tally, seconds: float, cpu: float) -> Result:
    latencies = [1000 * value for value in tally.latencies]
    first = [1000 * value for value in tally.first_texts]
    return Result(
        requests=len(latencies),
        errors=tally.errors,
        seconds=seconds,
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        cpu_seconds=cpu,
        tokens=tally.tokens,
        ttft_p50_ms=percentile(first, 0.5),
        ttft_p99_ms=percentile(first, 0.99),
        error=tally.error,
    )


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    result = uvloop.run(Run(plan).measure())
    print(msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
