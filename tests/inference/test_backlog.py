"""How long a request would wait: foretold from shares, compared with a queue that is counted."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from inference.backlog import READ, Backlog
from inference.fair_order import VIRTUAL_UNIT
from inference.gateway.admission import Admitted, Flow, Refused, Share, decide
from inference.selectors import drain_seconds, get_job, place_of
from inference.worker.pace import Pace
from portal.core.tenancy import tenant_scope
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential
from tests.inference.gateway.deciding import (
    DEPLOYMENT,
    OTHER_TENANT,
    TENANT,
    ask,
    call,
    key,
    ledger,
    one,
    window,
)
from tests.servers import SessionServers

MOST_TOKENS = 60


@pytest.fixture
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


# -- the forecast --------------------------------------------------------------------------

arrivals = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(0, 40)), min_size=1, max_size=60
)


@given(arrivals, st.integers(0, 60), st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_tokens_ahead_are_those_of_the_jobs_with_earlier_tags_to_within_one_job_a_tenant(
    asked: list[tuple[int, int, int]], claims: int, weights: list[int]
) -> None:
    tenants = [UUID(int=number + 1) for number in range(4)]
    keys = [
        key(str(n), id=UUID(int=50 + n), tenant_id=tenant, weight=weight)
        for n, (tenant, weight) in enumerate(zip(tenants, weights, strict=True))
    ]
    shares: dict[Flow, Share] = {}
    batch = [call(str(n), ask=ask(prompt, completion)) for n, prompt, completion in asked]
    verdicts = decide(batch, ledger(keys=keys, shares=shares))
    tags = [v.start_tag for v in verdicts if isinstance(v, Admitted)]
    queue = sorted(
        (tag, number, asked[number][0], batch[number].ask.tokens)  # type: ignore[union-attr]
        for number, tag in enumerate(tags)
    )
    waiting = queue[min(claims, len(queue) - 1) :]
    head = waiting[0][0]
    drawn = tuple(
        (tenants[n], 0, share.virtual_time, weights[n])
        for n in range(4)
        if (share := shares.get((tenants[n], DEPLOYMENT, 0))) and share.virtual_time > head
    )
    backlog = Backlog(head, 1.0, drawn)
    for number, tenant in enumerate(tenants):
        own = shares.get((tenant, DEPLOYMENT, 0))
        start = max(head, own.virtual_time if own else 0)
        ahead = sum(tokens for tag, _, _, tokens in waiting if tag < start)
        foretold = backlog.tokens_ahead(start, own=(tenant, 0, weights[number]))
        # A job whose tags straddle the head or the start counts in part; and what is rounded.
        assert abs(foretold - ahead) <= len(tenants) * (MOST_TOKENS + 1)


def test_wait_is_of_the_tenant_s_own_queue_where_others_are_light() -> None:
    backlog = Backlog(0, 100.0, ((TENANT, 0, 1_000 * VIRTUAL_UNIT, 1),))
    own = backlog.wait_seconds(1_000 * VIRTUAL_UNIT, own=(TENANT, 0, 1))
    # Fair order lets another tenant begin at once, however much this one has sent.
    assert (own, backlog.wait_seconds(0, own=(OTHER_TENANT, 0, 1))) == (10.0, 0.0)


def test_wait_shrinks_as_the_clock_passes_what_was_read() -> None:
    backlog = Backlog(0, 100.0, ((TENANT, 0, 1_000 * VIRTUAL_UNIT, 1),))
    start = 1_000 * VIRTUAL_UNIT
    assert backlog.wait_seconds(start, clock=400 * VIRTUAL_UNIT, own=(TENANT, 0, 1)) == 6.0


def test_wait_of_all_there_is_is_that_of_every_share() -> None:
    shares = ((None, 0, 1_000 * VIRTUAL_UNIT, 1), (None, 0, 500 * VIRTUAL_UNIT, 3))
    assert Backlog(0, 100.0, shares).wait_seconds(math.inf) == 25.0


def test_wait_is_not_known_while_no_worker_has_been_full() -> None:
    assert Backlog(0, None, ()).wait_seconds(10**9, own=(TENANT, 0, 1)) is None


# -- the pace ------------------------------------------------------------------------------


def test_pace_counts_full_time_alone() -> None:
    pace = Pace()
    pace.filled(now=0.0, full=False)
    pace.ended(1_000, now=10.0, full=False)
    assert pace.tokens_per_second is None
    pace.filled(now=20.0, full=True)
    pace.ended(100, now=21.0, full=False)
    pace.filled(now=21.0, full=True)
    pace.ended(100, now=22.0, full=False)
    assert pace.tokens_per_second == pytest.approx(100, rel=0.05)


def test_pace_follows_a_worker_that_grows_slow() -> None:
    pace = Pace()
    for second in range(200):
        pace.filled(now=second, full=True)
        pace.ended(100 if second < 100 else 10, now=second + 1, full=False)
    assert pace.tokens_per_second == pytest.approx(10, rel=0.35)


# -- admission -----------------------------------------------------------------------------


def backlogged(pace: float | None = 100.0) -> dict[UUID, Backlog]:
    return {DEPLOYMENT: Backlog(0, pace, ((TENANT, 0, 3_000 * VIRTUAL_UNIT, 1),))}


def shares() -> dict[Flow, Share]:
    return {(TENANT, DEPLOYMENT, 0): Share(3_000 * VIRTUAL_UNIT)}


def test_refuses_what_would_begin_after_its_caller_has_given_up_and_says_when_to_come() -> None:
    quota = window({"tokens_day": 10_000})
    late = call(ask=ask(patience=20.0))
    verdict = one(decide([late], ledger(quota, shares=shares(), backlogs=backlogged())))
    assert isinstance(verdict, Refused)
    assert (verdict.error.error_status, verdict.error.error_code) == (429, "queue_too_long")
    # 3,000 tokens at 100 a second, of which the caller waits 20 s.
    assert verdict.error.retry_after == pytest.approx(10.0)
    assert "about 30 s" in verdict.error.message
    assert (quota.added_tokens, quota.added_requests, quota.added_cost) == (0, 0, 0)


@pytest.mark.parametrize(("patience", "pace"), [(30.0, 100.0), (math.inf, 0.001), (0.001, None)])
def test_admits_what_begins_in_time_or_may_do_so(patience: float, pace: float | None) -> None:
    asked = call(ask=ask(patience=patience))
    told = ledger(window(), shares=shares(), backlogs=backlogged(pace))
    assert isinstance(one(decide([asked], told)), Admitted)


# -- what the database says ----------------------------------------------------------------


def test_read_tells_the_head_the_shares_and_the_pace_of_those_who_live(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    a, b = (credential(factories.api_key(tenant)) for tenant in (tenant_a, tenant_b))
    deployment = bench.served.deployment_id
    working(bench, "full", 300.0)
    working(bench, "new", None)
    working(bench, "gone", 900.0, age=60)
    working(bench, "leaving", 900.0, state="draining")
    assert deployment not in read(bench)
    bench.admit(a, 5)
    bench.admit(b, 1)
    (first, *_) = bench.claim(2)
    backlog = read(bench)[deployment]
    # The worker that has not been full yet counts as one like the other.
    assert backlog.pace == 600.0
    # The other's one job is claimed already: nothing of it waits.
    ((drawn, priority, start, weight),) = backlog.drawn
    assert (drawn, priority, weight) == (tenant_a.id, 0, 1)
    assert backlog.head > first.start_tag
    assert backlog.tokens_ahead(start, own=(tenant_a.id, 0, 1)) == 4 * first.reserved_tokens


def test_a_waiting_job_has_a_place_and_a_wait_and_a_running_one_has_none(
    bench: Bench,
    tenant_a: Organisation,
    tenant_b: Organisation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key_a, key_b = (credential(factories.api_key(tenant)) for tenant in (tenant_a, tenant_b))
    working(bench, "full", 100.0)
    mine = bench.admit(key_a, 4)
    theirs = bench.admit(key_b, 1)
    (claimed, other) = bench.claim(2)
    assert {claimed.id, other.id} == {mine[0], theirs[0]}
    bench.sweep()
    with tenant_scope(tenant_a.owner.context):
        running, *waiting = [get_job(job_id) for job_id in mine]
        assert place_of(running) is None
        each = claimed.reserved_tokens / 100
        places = [place_of(job) for job in waiting]
        assert [place.position for place in places if place] == [1, 2, 3]
        waits = [place.wait_seconds for place in places if place]
        assert waits == pytest.approx([0.0, each, 2 * each])
        assert drain_seconds(bench.served.deployment_id) == pytest.approx(3 * each)
    client = Client()
    client.force_login(tenant_a.owner.user)
    told = client.get(f"/api/v1/jobs/{mine[3]}").json()["queue"]
    assert told == {"position": 3, "wait_seconds": pytest.approx(2 * each)}
    assert client.get(f"/api/v1/jobs/{mine[0]}").json()["queue"] is None
    page = client.get(f"/admin/inference/job/{mine[3]}/").content.decode()
    assert "Place in the queue" in page
    assert (
        "Place in the queue" not in client.get(f"/admin/inference/job/{mine[0]}/").content.decode()
    )
    # A portal that another test keeps running writes the forecast anew: it is our clock that moves.
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(tz=UTC) + timedelta(minutes=1))
    with tenant_scope(tenant_a.owner.context):
        assert place_of(get_job(mine[1])) is None


def test_a_place_beyond_the_hundredth_is_told_in_round_numbers(
    bench: Bench, tenant_a: Organisation
) -> None:
    jobs = bench.admit(credential(factories.api_key(tenant_a)), 230)
    bench.sweep()
    with tenant_scope(tenant_a.owner.context):
        places = [place_of(get_job(jobs[number])) for number in (0, 99, 150, 229)]
    assert [place and place.position for place in places] == [1, 100, 101, 201]


def working(
    bench: Bench, name: str, pace: float | None, *, state: str = "ready", age: int = 1
) -> None:
    """A worker whose heartbeat is ``age`` seconds old."""
    deployment = bench.served.deployment_id
    bench.superuser.execute(
        "INSERT INTO inference_worker (id, name, deployment_id, version_digest, engine, state, "
        "detail, slots, running, pace, started_at, heartbeat_at) VALUES (gen_random_uuid(), "
        "%s, %s, '', 'fake', %s, '', 4, 4, %s, now(), now() - %s * interval '1 second')",
        [f"{name}-{deployment.hex}", deployment, state, pace, age],
    )


def read(bench: Bench) -> dict[UUID, Backlog]:
    rows = bench.worker.execute(READ).fetchall()
    return {deployment: Backlog.of(*rest) for deployment, *rest in rows}
