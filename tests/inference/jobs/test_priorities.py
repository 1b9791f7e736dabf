"""Classes of priority in fair order: who is served first, and how much each gets."""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.backlog import READ, Backlog
from inference.fair_order import STRETCH, earliest_tag, flow_weight, start_tag, virtual_cost
from inference.gateway.admission import Admitted, Call, Flow, Share, decide
from inference.models import Priority
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential
from tests.inference.gateway.deciding import DEPLOYMENT, ask, call, key, ledger, window
from tests.inference.jobs.support import submit_jobs
from tests.servers import SessionServers

CLASSES = st.sampled_from(list(Priority))
TENANTS = 4
KEYS = [key(str(n), id=UUID(int=50 + n), tenant_id=UUID(int=1 + n), weight=1 + n % 3)
        for n in range(TENANTS)]  # fmt: skip


class Queue:
    """A deployment's queue in memory: the product's decision, and its claim in start-tag order."""

    def __init__(self) -> None:
        self.clock = 0
        self.shares: dict[Flow, Share] = {}
        self.waiting: list[tuple[int, int, str, int, int]] = []
        self.admitted = 0

    def admit(self, calls: list[Call]) -> None:
        books = ledger(window(), keys=KEYS, clocks={DEPLOYMENT: self.clock}, shares=self.shares)
        for asked, verdict in zip(calls, decide(calls, books), strict=True):
            assert isinstance(verdict, Admitted)
            assert asked.ask is not None
            self.admitted += 1
            self.waiting.append(
                (
                    verdict.start_tag,
                    self.admitted,
                    verdict.key.public_id,
                    asked.ask.priority,
                    asked.ask.tokens,
                )
            )

    def claim(self, limit: int) -> list[tuple[int, int, str, int, int]]:
        self.waiting.sort()
        picked, self.waiting = self.waiting[:limit], self.waiting[limit:]
        if picked:
            self.clock = max(self.clock, picked[-1][0])
        return picked


def asked(tenant: int, priority: int, tokens: int = 30) -> Call:
    return call(str(tenant), ask=ask(tokens // 2, tokens - tokens // 2, priority=priority))


arrivals = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, TENANTS - 1),
            st.sampled_from([Priority.NORMAL, Priority.BATCH]),
            st.integers(2, 500),
            st.integers(1, 8),
        ),
        st.integers(1, 5),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(arrivals, st.integers(0, TENANTS - 1), st.integers(2, 500))
def test_an_interactive_call_is_in_the_next_claim_whatever_waits_in_other_classes(
    history: list[tuple[int, Priority, int, int] | int], caller: int, tokens: int
) -> None:
    queue = Queue()
    for event in history:
        if isinstance(event, int):
            queue.claim(event)
        else:
            tenant, priority, size, count = event
            queue.admit([asked(tenant, priority, size)] * count)
    queue.admit([asked(caller, Priority.INTERACTIVE, tokens)])
    ((_, _, who, level, _),) = queue.claim(1)
    assert (who, level) == (str(caller), Priority.INTERACTIVE)


def test_a_tenants_interactive_calls_do_not_wait_behind_its_batch_jobs() -> None:
    queue = Queue()
    queue.admit([asked(0, Priority.BATCH)] * 200)
    queue.claim(3)
    queue.admit([asked(0, Priority.INTERACTIVE)] * 5)
    classes = [priority for _, _, _, priority, _ in queue.claim(6)]
    assert classes == [Priority.INTERACTIVE] * 5 + [Priority.BATCH]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, TENANTS - 1), CLASSES), min_size=2, max_size=6, unique=True)
)
def test_busy_flows_share_by_tenant_weight_times_class(
    flows: list[tuple[int, Priority]],
) -> None:
    queue = Queue()
    for tenant, priority in flows:
        queue.admit([asked(tenant, priority)] * 700)
    served = Counter((who, level) for _, _, who, level, _ in queue.claim(700))
    weights = {
        (str(tenant), priority): flow_weight(KEYS[tenant].weight, priority)
        for tenant, priority in flows
    }
    for flow, weight in weights.items():
        assert abs(served[flow] - 700 * weight / sum(weights.values())) <= len(flows) + 1


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 20))
def test_nobody_starves_behind_a_steady_stream_of_interactive_calls(size: int) -> None:
    queue = Queue()
    queue.admit([asked(0, Priority.BATCH, 10 * size)] * 3)
    served: Counter[int] = Counter()
    for _ in range(700):
        queue.admit([asked(1, Priority.INTERACTIVE, 10 * size)])
        served.update(priority for _, _, _, priority, _ in queue.claim(1))
    # Of a weight of 2 against one of a sixteenth, and one waits for each that came.
    assert served[Priority.BATCH] == 3


@given(st.integers(0, 2**60), CLASSES)
def test_a_tag_tells_its_class_and_keeps_its_time(at: int, priority: Priority) -> None:
    tag = start_tag(at, priority)
    assert (tag % 4, abs(tag - at) <= 3) == (priority, True)
    assert earliest_tag(tag) == start_tag(at, Priority.INTERACTIVE)


@given(st.integers(1, 10**6), st.integers(1, 100), CLASSES)
def test_virtual_cost_is_tokens_by_weight(tokens: int, weight: int, priority: Priority) -> None:
    cost = virtual_cost(tokens, weight, priority)
    assert cost == pytest.approx(tokens * 1000 * STRETCH[priority] / weight, abs=1)
    assert flow_weight(weight, priority) * STRETCH[priority] == weight


# -- in the database -----------------------------------------------------------------------


@pytest.fixture
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


def test_claims_serve_a_tenants_call_before_its_waiting_batch(
    bench: Bench, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    batch = submit_jobs(bench, key, 20, priority=Priority.BATCH)
    (first,) = bench.claim(1)
    assert first.id == batch[0]
    (normal,) = submit_jobs(bench, key, priority=Priority.NORMAL)
    (called,) = bench.admit(credential(key))
    assert [job.id for job in bench.claim(3)] == [called, normal, batch[1]]
    rows = bench.rows(
        "SELECT priority FROM inference_fairshare WHERE tenant_id = %s ORDER BY 1", tenant_a.id
    )
    assert [row["priority"] for row in rows] == [0, 1, 2]


def test_claims_with_a_floor_find_a_more_urgent_job_of_the_same_time(
    bench: Bench, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    submit_jobs(bench, key, 3, priority=Priority.BATCH)
    (first,) = bench.claim(1)
    (called,) = bench.admit(credential(key))
    floor = earliest_tag(first.start_tag)
    assert [job.id for job in bench.claim(1, floor=floor)] == [called]


def test_forecast_counts_each_class_by_its_own_weight(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    submit_jobs(bench, factories.api_key(tenant_a), 8, priority=Priority.BATCH)
    submit_jobs(bench, factories.api_key(tenant_a), 4, priority=Priority.NORMAL)
    tokens = bench.claim(1)[0].reserved_tokens
    rows = bench.worker.execute(READ).fetchall()
    backlog = {deployment: Backlog.of(*rest) for deployment, *rest in rows}[
        bench.served.deployment_id
    ]
    weights = {priority: weight for _, priority, _, weight in backlog.drawn}
    assert weights == {Priority.NORMAL: 0.25, Priority.BATCH: 0.0625}
    # All that waits: eleven jobs, to within what the head has begun of each flow.
    assert abs(backlog.tokens_ahead(2**60) - 11 * tokens) <= 2 * tokens
    # An interactive call of anybody begins at once.
    own = (tenant_b.id, int(Priority.INTERACTIVE), 1.0)
    assert backlog.tokens_ahead(backlog.head, own=own) == 0
