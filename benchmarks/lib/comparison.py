"""The campaign: rounds of measurements, ours and a peer's in turn."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from benchmarks.lib.audit import Books, read_books
from benchmarks.lib.load import Plan, Result
from benchmarks.lib.portal import ROOT, Portal
from benchmarks.lib.processes import trees_cpu
from benchmarks.lib.seed import STREAM, WHOLE

_ROUNDS: Final = 3
_SECONDS: Final = {1: 4.0, 32: 6.0, 128: 4.0}
_STREAMS: Final = 32
_STREAMS_EACH: Final = 5
_LEAST_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Peer:
    """Another OpenAI-compatible gateway."""

    host: str
    port: int
    path: str
    key: str
    model: str

    @classmethod
    def of(cls, url: str, key: str, model: str) -> Self:
        """The peer at a base URL, with or without its ``/v1``; plain HTTP only."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise SystemExit("--against takes an http:// URL.")
        base = parts.path.rstrip("/")
        path = base if base.endswith("/v1") else f"{base}/v1"
        return cls(parts.hostname, parts.port or 80, f"{path}/chat/completions", key, model)

    def plan(self, callers: int, *, seconds: float = 0.0, each: int = 0) -> Plan:
        """Whole answers for some seconds, or ``each`` streams a caller."""
        body = _body(self.model, stream=bool(each))
        return Plan(self.host, self.port, self.path, (self.key,), body, callers, seconds, each)

    def require_answer(self) -> None:
        """Ends the run before it has begun, unless the peer answers."""
        load = measure(self.plan(1, each=1), {}).load
        if load.errors:
            where = f"http://{self.host}:{self.port}{self.path}"
            raise SystemExit(f"{where} does not answer with a completion: {load.error}")


@dataclass(frozen=True)
class Measured:
    """One measurement: what callers saw and what each process spent meanwhile."""

    load: Result
    cpu_seconds: dict[str, float]

    def cpu_ms(self, name: str) -> float:
        """Processor milliseconds a request of one process tree."""
        return 1000 * self.cpu_seconds[name] / max(1, self.load.requests)


@dataclass
class Series:
    """All rounds of one measurement."""

    title: str
    rounds: list[Measured] = field(default_factory=list)

    def median(self, name: str) -> float:
        """The median over the rounds of a field of ``Result``."""
        return float(statistics.median(getattr(m.load, name) for m in self.rounds))

    @property
    def requests(self) -> int:
        return sum(m.load.requests for m in self.rounds)

    @property
    def errors(self) -> int:
        return sum(m.load.errors for m in self.rounds)

    @property
    def tokens_per_s(self) -> float:
        return statistics.median(m.load.tokens / m.load.seconds for m in self.rounds)

    @property
    def load_cpu_ms(self) -> float:
        """What the load generator spent a request; not part of the gateway's cost."""
        return 1000 * sum(m.load.cpu_seconds for m in self.rounds) / max(1, self.requests)

    def cpu_ms(self) -> dict[str, float]:
        """Processor milliseconds a request of each process tree, the rounds together."""
        names: Iterable[str] = self.rounds[0].cpu_seconds
        total = max(1, self.requests)
        return {n: 1000 * sum(m.cpu_seconds[n] for m in self.rounds) / total for n in names}


@dataclass
class Figures:
    """Everything a run has measured."""

    own: dict[int, Series]
    streams: Series
    peers: dict[int, Series]
    peer_streams: Series | None
    limit_rps: list[float]
    books: Books
    faults: list[str]


def measure(plan: Plan, pids: dict[str, int]) -> Measured:
    """Runs the load generator and meters the processes meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.lib.load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(msgspec.json.encode(plan))
        process.stdin.close()
        began = process.stdout.readline()
        before = trees_cpu(pids)
        line = process.stdout.readline()
        after = trees_cpu(pids)
    if began.strip() != b"begin" or not line:
        raise SystemExit("The load generator failed; what it said stands above.")
    result = msgspec.json.decode(line, type=Result)
    return Measured(result, {name: after[name] - before[name] for name in pids})


class Campaign:
    """Measures an installation, and a peer in turn with it.

    Args:
        scale: length of the run; 1 takes about a minute and a half without a peer.
    """

    def __init__(self, portal: Portal, peer: Peer | None, *, scale: float) -> None:
        self._portal = portal
        self._peer = peer
        self._scale = scale
        self._rounds = max(1, round(_ROUNDS * min(1.0, scale)))

    def run(self) -> Figures:
        own = {c: Series(f"c={c}") for c in _SECONDS}
        peers = {c: Series(f"peer c={c}") for c in _SECONDS} if self._peer else {}
        streams = Series(f"{_STREAMS} streams")
        peer_streams = Series(f"peer {_STREAMS} streams") if self._peer else None
        limits = []
        for number in range(self._rounds):
            for callers in _SECONDS:
                self._note(number, f"{callers} callers")
                own[callers].rounds.append(self._own(self._whole(callers)))
                if self._peer is not None:
                    plan = self._peer.plan(callers, seconds=self._seconds(callers))
                    peers[callers].rounds.append(measure(plan, {}))
            self._note(number, "the bare loop")
            limits.append(self._limit())
            self._note(number, f"{_STREAMS} streams")
            streams.rounds.append(self._own(self._streams()))
            if self._peer is not None and peer_streams is not None:
                plan = self._peer.plan(_STREAMS, each=max(1, self._each // 3))
                peer_streams.rounds.append(measure(plan, {}))
        books = read_books(self._portal.database_url("superuser"))
        faults = books.faults()
        faults += [f"{s.title}: {s.errors} failed" for s in (*own.values(), streams) if s.errors]
        return Figures(own, streams, peers, peer_streams, limits, books, faults)

    def _note(self, number: int, what: str) -> None:
        print(f"round {number + 1}/{self._rounds}: {what}", file=sys.stderr, flush=True)

    def _own(self, plan: Plan) -> Measured:
        return measure(plan, self._portal.pids)

    def _seconds(self, callers: int) -> float:
        return max(_LEAST_SECONDS, _SECONDS[callers] * self._scale * _ROUNDS / self._rounds)

    def _whole(self, callers: int) -> Plan:
        portal = self._portal
        return Plan(
            portal.host,
            portal.port,
            "/v1/chat/completions",
            portal.keys,
            _body(WHOLE, stream=False),
            callers,
            seconds=self._seconds(callers),
            warm_up_seconds=max(0.3, min(1.0, self._scale)),
        )

    def _streams(self) -> Plan:
        portal = self._portal
        return Plan(
            portal.host,
            portal.port,
            "/v1/chat/completions",
            portal.keys,
            _body(STREAM, stream=True),
            _STREAMS,
            each=self._each,
        )

    @property
    def _each(self) -> int:
        return max(1, round(_STREAMS_EACH * self._scale * _ROUNDS / self._rounds))

    def _limit(self) -> float:
        words = ["-m", "benchmarks.lib.limit", str(_STREAMS), str(self._seconds(32))]
        return float(self._portal.run(words, told=self._portal.keys[0]))


def _body(model: str, *, stream: bool) -> str:
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello in one sentence."}],
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body)
