"""Each line has exactly one result and at most one job, wherever its worker dies."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.models import BatchState, JobState
from portal.core.supervisor.launch import child_env
from tests import factories
from tests.inference.batches.support import Made, line, make_batch, with_body
from tests.inference.bench import Bench
from tests.servers import ROOT, SessionServers

LINES = 12


@pytest.fixture(scope="module")
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


class Killed(BaseException):
    """The process is gone: nothing of its open transaction stays."""


def killer(after: int) -> Callable[..., Any]:
    """Dies before the statement of that number is sent."""
    left = after

    def execute(call: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return call(*arguments)

    return execute


def die_in_a_step(made: Made, statements: int) -> None:
    """A step that dies after so many statements, or takes place if it has fewer."""
    try:
        with connection.execute_wrapper(killer(statements)):
            made.step()
    except Killed:
        connection.close()


def work(made: Made, limit: int) -> None:
    """A worker answers some and fails one in three of them."""
    bench = made.bench
    for number, job in enumerate(bench.claim(limit)):
        if number % 3 == 2:
            bench.end(job, JobState.FAILED, error_code="server_error")
        else:
            bench.release(job, forgive=True)
            made.work(1)


def assert_each_line_once(made: Made, count: int, most_jobs: int) -> None:
    facts = made.facts
    assert facts.ended_at is not None
    results, errors = made.results(), made.errors()
    ids = Counter(r["custom_id"] for r in results + errors)
    assert ids == {f"id-{n}": 1 for n in range(count)}
    assert (facts.completed, facts.failed) == (len(results), len(errors))
    jobs = made.jobs()
    assert len(jobs) <= most_jobs
    told = Counter(r["response"]["request_id"] for r in results)
    assert set(told.values()) <= {1}
    assert set(told) <= {str(job["id"]) for job in jobs}
    charges = [len(made.bench.charges(job["id"])) for job in jobs]
    assert max(charges, default=0) <= 1


EVENTS = st.one_of(
    st.tuples(st.just("die"), st.integers(0, 40)),
    st.tuples(st.just("work"), st.integers(1, LINES)),
    st.tuples(st.just("step"), st.just(0)),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=st.lists(EVENTS, max_size=15), end=st.sampled_from(["run", "cancel", "expire"]))
def test_run_batch_with_deaths_at_any_statement_gives_each_line_one_result(
    bench: Bench, events: list[tuple[str, int]], end: str
) -> None:
    lines = [line(bench, f"id-{n}") for n in range(LINES - 1)]
    lines.append(with_body(bench, f"id-{LINES - 1}", temperature=9))
    made = make_batch(bench, factories.api_key(factories.organisation("killed")), lines)
    made.step()
    for event, size in events:
        if event == "die":
            die_in_a_step(made, size)
        elif event == "work":
            work(made, size)
        else:
            made.step()
    if end == "cancel" and made.state == BatchState.IN_PROGRESS:
        made.cancel()
    elif end == "expire":
        made.expire()
    for _ in range(60):
        if made.facts.ended_at is not None:
            break
        made.step()
        bench.sweep()
        made.work()
    assert_each_line_once(made, LINES, LINES - 1)


def test_run_batch_by_processes_that_are_killed_gives_each_line_one_result(
    bench: Bench, servers: SessionServers
) -> None:
    count = 200
    made = make_batch(
        bench,
        factories.api_key(factories.organisation("killed")),
        [line(bench, f"id-{n}") for n in range(count)],
    )
    chance = random.Random(7)
    deaths = 0
    while made.facts.ended_at is None:
        feeder = subprocess.Popen(
            [sys.executable, "-m", "tests.inference.batches.feeder", str(made.key.tenant_id),
             str(made.id)],
            cwd=ROOT,
            env=child_env(servers.data_dir, {"FREEHOLD_DATABASE_ROLE": "app"}),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert feeder.stdout is not None
        # It dies somewhere in the step after these.
        for _ in range(chance.randrange(1, 5)):
            feeder.stdout.readline()
            made.work(40)
        feeder.kill()
        feeder.wait()
        feeder.stdout.close()
        deaths += 1
        assert deaths < 60, made.facts
    assert deaths >= 2
    assert made.state == BatchState.COMPLETED
    assert_each_line_once(made, count, count)
    assert len(made.jobs()) == count
