"""The judge of the campaigns: it must see each thing that is wrong, and nothing else."""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from benchmarks.lib.books import RULES, Depositions, broken_promises, broken_rules
from benchmarks.lib.witnesses import WORDS, Told, consecutive
from inference.models.jobs import JobState
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential
from tests.servers import SessionServers

# Each tampers with the rows of one job that has succeeded.
TAMPERINGS = {
    "jobs_not_ended": "UPDATE inference_job SET state = 0, finished_at = NULL WHERE id = %s",
    "jobs_without_one_admission": (
        "DELETE FROM audit_event WHERE object_id = %s::text AND outcome = 'requested'"
    ),
    "jobs_without_one_outcome": (
        "DELETE FROM audit_event WHERE object_id = %s::text AND outcome = 'success'"
    ),
    "jobs_charged_twice": (
        "INSERT INTO tenants_ledgerentry SELECT (r).* FROM (SELECT jsonb_populate_record(l, "
        "jsonb_build_object('id', gen_random_uuid(), 'tenant_id', gen_random_uuid())) AS r "
        "FROM tenants_ledgerentry l WHERE job_id = %s) copy"
    ),
    "charges_without_a_job": (
        "UPDATE tenants_ledgerentry SET job_id = gen_random_uuid() WHERE job_id = %s"
    ),
    "charges_that_are_not_the_watermark": (
        "UPDATE inference_job SET watermark = watermark + 1 WHERE id = %s"
    ),
    "windows_that_still_hold": (
        "UPDATE tenants_quotawindow SET active = 1 WHERE quota_id = ANY(ARRAY("
        "SELECT unnest(quota_ids) FROM inference_job WHERE id = %s))"
    ),
    "windows_that_miscount": (
        "UPDATE tenants_quotawindow SET cost_total_used = cost_total_used + 1 WHERE quota_id = "
        "ANY(ARRAY(SELECT unnest(quota_ids) FROM inference_job WHERE id = %s))"
    ),
    "payloads_beyond_their_time": (
        "INSERT INTO inference_jobpayload (job_id, tenant_id, data_key_version, prompt) "
        "SELECT id, tenant_id, 1, '' FROM inference_job WHERE id = %s"
    ),
    "charges_rolled_up_wrongly": (
        "INSERT INTO tenants_usagebucket SELECT gen_random_uuid(), tenant_id, now(), user_id, "
        "api_key_id, model_id, 'nothing', currency, 1, 1, 1, 1 FROM inference_job WHERE id = %s"
    ),
}


@pytest.fixture
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def counted(servers: SessionServers, database: None) -> None:
    """The planner knows how much other tests have left, whose rows the judge reads too."""
    with psycopg.connect(servers.url("superuser"), autocommit=True) as connection:
        connection.execute("ANALYZE")


def succeeded(bench: Bench, tenant: Organisation, tokens: int) -> UUID:
    """A job that has succeeded."""
    bench.admit(credential(factories.api_key(tenant)))
    (job,) = bench.claim()
    bench.end(job, JobState.SUCCEEDED, tokens)
    return job.id


@pytest.fixture
def frozen(bench: Bench) -> Iterator[psycopg.Connection]:
    """A connection that sees one moment, whoever else writes, and whose writes are undone."""
    with psycopg.connect(bench.servers.url("superuser")) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        # What no program may change, a tamperer with the disk can.
        connection.execute("SET session_replication_role = replica")
        yield connection
        connection.rollback()


def test_every_rule_has_its_tampering() -> None:
    assert set(TAMPERINGS) == set(RULES)


@pytest.mark.parametrize("rule", TAMPERINGS)
def test_sees_a_broken_rule(
    bench: Bench, tenant_a: Organisation, frozen: psycopg.Connection, rule: str
) -> None:
    job = succeeded(bench, tenant_a, 3)
    before = broken_rules(frozen)
    frozen.execute(TAMPERINGS[rule].encode(), [job])
    assert broken_rules(frozen)[rule] > before[rule]


def test_sees_nothing_wrong_where_nothing_is(
    bench: Bench, tenant_a: Organisation, frozen: psycopg.Connection
) -> None:
    job = succeeded(bench, tenant_a, 3)
    (prompt,) = (row["prompt_tokens"] for row in [bench.job(job)])
    told = Told("whole", 200, job, list(WORDS[5:8]), (prompt, 3), finished=True)
    assert not any(broken_promises(frozen, Depositions([told])).values())


def test_sees_each_broken_promise(
    bench: Bench, tenant_a: Organisation, frozen: psycopg.Connection
) -> None:
    job = succeeded(bench, tenant_a, 3)
    prompt = bench.job(job)["prompt_tokens"]
    words = list(WORDS[5:8])

    def broken(*told: Told) -> set[str]:
        return {name for name, count in broken_promises(frozen, Depositions(told)).items() if count}

    gap = Told("stream", 200, job, [WORDS[5], WORDS[6], WORDS[8]], (prompt, 3), finished=True)
    assert broken(gap) == {"answers_with_a_gap"}
    short = Told("stream", 200, job, words[:2], (prompt, 3), finished=True)
    assert broken(short) == {"answers_of_another_length"}
    other = Told("stream", 200, job, words, (prompt, 4), finished=True)
    assert broken(other) == {"answers_with_another_usage"}
    assert broken(Told("whole", 200, UUID(int=1), words)) == {"answers_without_a_job"}
    good = Told("whole", 200, job, words, (prompt, 3), finished=True)
    assert broken(good, good) == {"jobs_answered_twice"}
    frozen.execute("UPDATE inference_job SET state = 3 WHERE id = %s", [job])
    assert broken(good) == {"answers_of_unsuccessful_jobs"}


def test_words_are_consecutive_round_the_end_and_not_with_a_gap() -> None:
    assert consecutive([])
    assert consecutive([*WORDS[-2:], *WORDS[:2]])
    assert not consecutive([WORDS[0], WORDS[0]])
    assert not consecutive([WORDS[3], WORDS[2]])
    assert not consecutive(["strange"])
