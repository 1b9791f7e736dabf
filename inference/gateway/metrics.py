"""What a gateway process counts, and how it is told to Prometheus.

Labels are bounded: actions, statuses, codes and states are the product's own, and models are
those of the catalogue. No tenant, key or text of a caller is one.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from inference.gateway.sending import Sending
from inference.models.jobs import JobState
from portal.core.metrics import Families, Histogram, counter, gauge, histogram

if TYPE_CHECKING:
    from inference.gateway.core import Gateway
    from inference.gateway.waiting import Waiter

_FIRST_TOKEN: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_GENERATION: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_COMMIT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_LAG: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

# Codes are ours, but an engine's may be another program's: no more of them than this.
_MOST_CODES: Final = 100
_OTHER: Final = "other"


class GatewayMetrics:
    """Counts since the process was started. Belongs to the gateway's event loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.errors: Counter[str] = Counter()
        self.ended: Counter[int] = Counter()
        self.first_token: dict[tuple[str, ...], Histogram] = {}
        self.generation: dict[tuple[str, ...], Histogram] = {}
        self.batch_size = Histogram(_BATCH)
        self.commit_seconds = Histogram(_COMMIT)
        self.loop_lag = Histogram(_LAG)
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.disconnects = 0

    def answered(self, action: str, sending: Sending, began: float) -> None:
        """A request has been answered, or its caller has gone away.

        Args:
            began: when it came, by ``time.perf_counter``.
        """
        self.requests[action, sending.status] += 1
        if sending.status != 200 or not sending.model:
            return
        key = (sending.model,)
        found = self.generation.get(key)
        if found is None:
            found = self.generation[key] = Histogram(_GENERATION)
            self.first_token[key] = Histogram(_FIRST_TOKEN)
        found.observe(time.perf_counter() - began)
        if sending.stream:
            # A stream's head leaves with its first text.
            self.first_token[key].observe(sending.head_at - began)

    def failed(self, code: str) -> None:
        """A request was refused, or its generation failed."""
        if code not in self.errors and len(self.errors) >= _MOST_CODES:
            code = _OTHER
        self.errors[code] += 1

    def left(self, waiter: "Waiter") -> None:
        """A caller no longer waits for its job."""
        end = waiter.end
        if end is not None:
            self.ended[end.state] += 1
            self.prompt_tokens += end.prompt_tokens
            self.completion_tokens += end.completion_tokens
            if end.error_code:
                self.failed(end.error_code)
        elif waiter.gone:
            self.disconnects += 1
        elif waiter.broken:
            self.failed("stream_interrupted")

    def committed(self, size: int, seconds: float) -> None:
        """A batch of calls was admitted or refused in one transaction."""
        self.batch_size.observe(size)
        self.commit_seconds.observe(seconds)


def gateway_families(gateway: "Gateway") -> Families:
    """The figures of a gateway process."""
    metrics = gateway.metrics
    return [
        counter(
            "freehold_gateway_requests",
            "Requests on /v1 by what was asked and the status; 'none': the caller went away.",
            ("action", "status"),
            [((a, str(s or "none")), n) for (a, s), n in sorted(metrics.requests.items())],
        ),
        counter(
            "freehold_gateway_errors",
            "Requests that were refused or failed, by error code.",
            ("code",),
            [((code,), n) for code, n in sorted(metrics.errors.items())],
        ),
        histogram(
            "freehold_gateway_first_token_seconds",
            "From a request's arrival to the first text of a streamed answer.",
            ("model",),
            metrics.first_token,
        ),
        histogram(
            "freehold_gateway_generation_seconds",
            "From a request's arrival to the end of its answer.",
            ("model",),
            metrics.generation,
        ),
        *_job_families(metrics),
        *_admission_families(metrics),
        *_state_families(gateway),
    ]


def _job_families(metrics: GatewayMetrics) -> Families:
    return [
        counter(
            "freehold_gateway_jobs_ended",
            "Jobs whose end their callers waited for, by state.",
            ("state",),
            [((JobState(s).name.lower(),), n) for s, n in sorted(metrics.ended.items())],
        ),
        counter(
            "freehold_gateway_prompt_tokens",
            "Prompt tokens charged for those jobs.",
            (),
            [((), metrics.prompt_tokens)],
        ),
        counter(
            "freehold_gateway_completion_tokens",
            "Completion tokens charged for those jobs.",
            (),
            [((), metrics.completion_tokens)],
        ),
        counter(
            "freehold_gateway_disconnects",
            "Callers who went away before their job's end.",
            (),
            [((), metrics.disconnects)],
        ),
    ]


def _admission_families(metrics: GatewayMetrics) -> Families:
    return [
        histogram(
            "freehold_gateway_admission_batch_size",
            "Calls that were decided in one transaction.",
            (),
            {(): metrics.batch_size},
        ),
        histogram(
            "freehold_gateway_admission_commit_seconds",
            "Time of admission's transactions.",
            (),
            {(): metrics.commit_seconds},
        ),
    ]


def _state_families(gateway: "Gateway") -> Families:
    streams = gateway.room.streams()
    return [
        gauge(
            "freehold_gateway_open_generations",
            "Admitted calls that have not ended, by how they are answered.",
            ("answer",),
            [(("stream",), streams), (("whole",), len(gateway.room) - streams)],
        ),
        counter(
            "freehold_gateway_connections_opened",
            "Connections made; each after the first of a link followed a loss.",
            ("link",),
            [((name,), n) for name, n in gateway.connections_opened().items()],
        ),
        gauge(
            "freehold_gateway_broker_connected",
            "1 while the answers of workers can be read.",
            (),
            [((), float(gateway.reader.connected))],
        ),
        histogram(
            "freehold_gateway_loop_lag_seconds",
            "How late the event loop woke from a sleep of a quarter of a second.",
            (),
            {(): gateway.metrics.loop_lag},
        ),
    ]
