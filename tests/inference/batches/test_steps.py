"""The steps of a batch: validated, run, waited for, ended; each line once, whatever happens."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from inference.models import BatchState, JobState, Priority
from inference.services import set_deployment_enabled
from tenants.services import revoke_api_key, set_quota, suspend_tenant
from tests import factories
from tests.factories import TESTS, Organisation
from tests.inference.batches.support import RESTS, Made, line, make_batch, with_body
from tests.inference.bench import Bench
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


def batch_of(bench: Bench, tenant: Organisation, count: int) -> Made:
    lines = [line(bench, f"id-{n}") for n in range(count)]
    return make_batch(bench, factories.api_key(tenant), lines)


# -- from the input to the results -----------------------------------------------------------


def test_run_batch_answers_every_line_and_charges_it_once(
    bench: Bench, tenant_a: Organisation
) -> None:
    made = batch_of(bench, tenant_a, 5)
    made.step()
    assert (made.state, made.counts) == (BatchState.IN_PROGRESS, (5, 0, 0))
    made.step()
    jobs = made.jobs()
    assert {(j["kind"], j["priority"], j["state"]) for j in jobs} == {("batch", Priority.BATCH, 0)}
    assert made.work() == 5
    made.step()
    assert (made.state, made.counts) == (BatchState.FINALIZING, (5, 5, 0))
    assert made.facts.output_file_id is not None
    made.step()
    assert made.state == BatchState.COMPLETED
    results = made.results()
    assert sorted(r["custom_id"] for r in results) == [f"id-{n}" for n in range(5)]
    ids = {str(job["id"]) for job in jobs}
    for result in results:
        response = result["response"]
        assert (response["status_code"], result["error"]) == (200, None)
        assert response["request_id"] in ids
        (choice,) = response["body"]["choices"]
        assert choice["message"]["content"] == f"answer {response['request_id']}"
    facts = made.facts
    assert facts.error_file_id is None
    assert (facts.prompt_tokens, facts.completion_tokens) == (5 * jobs[0]["prompt_tokens"], 10)
    assert [len(bench.charges(job["id"])) for job in jobs] == [1] * 5
    assert bench.outcomes(jobs[0]["id"]) == [("requested", ""), ("success", "")]
    left = bench.rows("SELECT 1 FROM inference_batchline WHERE batch_id = %s", made.id)
    assert left == []


def test_run_batch_with_lines_that_can_never_run_completes_and_names_them(
    bench: Bench, tenant_a: Organisation
) -> None:
    lines = [
        line(bench, "good"),
        with_body(bench, "too long", max_tokens=10**6),
        with_body(bench, "wrong", temperature=7),
        with_body(bench, "streamed", stream=True),
    ]
    made = make_batch(bench, factories.api_key(tenant_a), lines)
    made.finish()
    assert (made.state, made.counts) == (BatchState.COMPLETED, (4, 1, 3))
    assert [r["custom_id"] for r in made.results()] == ["good"]
    errors = {e["custom_id"]: e["response"] for e in made.errors()}
    assert set(errors) == {"too long", "wrong", "streamed"}
    assert {e["status_code"] for e in errors.values()} == {400}
    assert errors["too long"]["body"]["error"]["code"] == "context_length_exceeded"
    assert len(made.jobs()) == 1


def test_run_batch_of_large_answers_writes_them_down_a_few_at_a_time(
    bench: Bench, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of vectors are long: a step holds no more of them than it has room for."""
    made = batch_of(bench, tenant_a, 3)
    made.step()
    made.step()
    assert made.work() == 3
    monkeypatch.setattr("inference.batches.running._BYTES_A_STEP", 1)
    for done in (1, 2, 3):
        made.step()
        assert made.counts == (3, done, 0)
    made.finish()
    assert sorted(r["custom_id"] for r in made.results()) == ["id-0", "id-1", "id-2"]


def test_run_batch_whose_jobs_fail_completes_with_an_error_file(
    bench: Bench, tenant_a: Organisation
) -> None:
    made = batch_of(bench, tenant_a, 2)
    made.step()
    made.step()
    (first,) = bench.claim(1)
    bench.end(first, JobState.FAILED, error_code="server_error", error_message="boom")
    made.finish()
    assert (made.state, made.counts) == (BatchState.COMPLETED, (2, 1, 1))
    (error,) = made.errors()
    assert error["response"]["status_code"] == 500
    assert "boom" not in str(error)


# -- validation ------------------------------------------------------------------------------


def test_validate_input_with_faults_names_their_lines_and_runs_nothing(
    bench: Bench, tenant_a: Organisation
) -> None:
    lines = [
        line(bench, "a"),
        b"{not json\n",
        b"\n",
        line(bench, "a"),
        line(bench, "b", method="GET"),
        line(bench, "c", url="/v1/embeddings"),
        line(bench, "d", body={"model": "another", "messages": []}),
        line(bench, "e", body=[1]),
        line(bench, "\0"),
        line(bench, ""),
        b'{"method": "POST", "url": "/v1/chat/completions", "body": {}}\n',
        b"\xff\xfe\n",
        b'"text"',
    ]
    made = make_batch(bench, factories.api_key(tenant_a), lines)
    made.step()
    assert (made.state, made.counts) == (BatchState.FAILED, (0, 0, 0))
    found = sorted((e["line"], e["code"]) for e in made.facts.errors)
    assert found == [
        (2, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (5, "invalid_method"),
        (6, "invalid_url"),
        (7, "mismatched_model"),
        (8, "invalid_body"),
        (9, "invalid_custom_id"),
        (10, "invalid_custom_id"),
        (11, "missing_required_parameter"),
        (12, "invalid_json_line"),
        (13, "invalid_json_line"),
    ]
    assert made.jobs() == []


@pytest.mark.parametrize("content", [b"\n", b" \n\n", b"\xef\xbb\xbf\n"])
def test_validate_input_without_a_request_fails(
    bench: Bench, tenant_a: Organisation, content: bytes
) -> None:
    made = make_batch(bench, factories.api_key(tenant_a), content)
    made.step()
    assert made.state == BatchState.FAILED
    assert [e["code"] for e in made.facts.errors] in (["empty_file"], ["invalid_json_line"])


def test_validate_line_of_ten_megabytes_fails_and_goes_on_behind_it(
    bench: Bench, tenant_a: Organisation
) -> None:
    lines = [line(bench, "a"), b"x" * 10_000_000 + b"\n", line(bench, "a")]
    made = make_batch(bench, factories.api_key(tenant_a), lines)
    made.steps(BatchState.FAILED)
    found = sorted((e["line"], e["code"]) for e in made.facts.errors)
    assert found == [(2, "line_too_long"), (3, "duplicate_custom_id")]


def test_validate_stops_telling_of_faults_after_fifty(bench: Bench, tenant_a: Organisation) -> None:
    made = make_batch(bench, factories.api_key(tenant_a), b"x\n" * 5000)
    made.step()
    assert made.state == BatchState.FAILED
    assert len(made.facts.errors) == 50


def test_validate_in_several_steps_finds_duplicates_across_them(
    bench: Bench, tenant_a: Organisation
) -> None:
    lines = [line(bench, f"id-{n}") for n in range(2100)]
    made = make_batch(bench, factories.api_key(tenant_a), [*lines, lines[3]])
    made.step()
    made.step()
    assert (made.state, made.counts[0]) == (BatchState.VALIDATING, 2000)
    made.step()
    assert made.state == BatchState.FAILED
    assert [(e["line"], e["code"]) for e in made.facts.errors] == [(2101, "duplicate_custom_id")]


# -- waiting for room ------------------------------------------------------------------------


def test_feed_when_a_window_is_full_waits_and_goes_on_when_there_is_room(
    bench: Bench, tenant_a: Organisation
) -> None:
    set_quota(context=TESTS, tenant_id=tenant_a.id, requests_day=2)
    made = batch_of(bench, tenant_a, 4)
    made.step()
    made.step()
    assert len(made.jobs()) == 2
    made.work()
    for _ in range(3):
        made.step()
    assert (made.state, made.counts) == (BatchState.IN_PROGRESS, (4, 2, 0))
    (row,) = bench.rows("SELECT * FROM inference_batch WHERE id = %s", made.id)
    assert "2 requests per day" in row["waiting_for"]
    refused = bench.rows(
        "SELECT 1 FROM audit_event WHERE request_id = %s AND outcome = 'denied'",
        f"batch_{made.id.hex}",
    )
    assert refused == []
    set_quota(context=TESTS, tenant_id=tenant_a.id, requests_day=10)
    made.finish()
    assert (made.state, made.counts) == (BatchState.COMPLETED, (4, 4, 0))
    assert len(made.jobs()) == 4


def test_feed_of_a_batch_that_waits_is_not_tried_before_its_time(
    bench: Bench, tenant_a: Organisation
) -> None:
    set_quota(context=TESTS, tenant_id=tenant_a.id, requests_day=0)
    set_quota(context=TESTS, tenant_id=tenant_a.id, requests_day=1)
    made = batch_of(bench, tenant_a, 2)
    made.step()
    made.step()
    made.work()
    made.step()
    (row,) = bench.rows("SELECT feed_at FROM inference_batch WHERE id = %s", made.id)
    rests = RESTS[made.id]
    assert abs((row["feed_at"] - rests).total_seconds()) < 0.1
    assert rests > datetime.now(UTC)


@pytest.mark.parametrize(
    "limits", [{"tokens_minute": 3}, {"cost_total": 0}, {"tokens_total": 3}, {"concurrency": 0}]
)
def test_feed_of_a_line_that_no_room_can_be_made_for_fails_the_line(
    bench: Bench, tenant_a: Organisation, limits: dict[str, Any]
) -> None:
    set_quota(context=TESTS, tenant_id=tenant_a.id, **limits)
    made = batch_of(bench, tenant_a, 1)
    made.finish()
    assert (made.state, made.counts) == (BatchState.COMPLETED, (1, 0, 1))
    (error,) = made.errors()
    assert error["response"]["status_code"] == 429


def test_feed_of_a_suspended_tenant_waits(bench: Bench, tenant_a: Organisation) -> None:
    made = batch_of(bench, tenant_a, 1)
    made.step()
    suspend_tenant(context=TESTS, tenant_id=tenant_a.id, reason="unpaid")
    made.step()
    assert (made.state, made.counts) == (BatchState.IN_PROGRESS, (1, 0, 0))


def test_feed_by_a_revoked_key_ends_the_batch_with_a_clear_error(
    bench: Bench, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    made = make_batch(bench, key, [line(bench, f"{n}") for n in range(70)])
    made.step()
    made.step()
    assert made.work() == 64
    revoke_api_key(context=tenant_a.context, api_key_id=key.api_key.id, reason="lost")
    made.finish()
    assert (made.state, made.counts) == (BatchState.FAILED, (70, 64, 6))
    assert [e["code"] for e in made.facts.errors] == ["invalid_api_key"]
    assert len(made.results()) == 64
    assert {e["error"]["code"] for e in made.errors()} == {"batch_failed"}


def test_feed_of_a_disabled_model_fails_its_lines(
    servers: SessionServers, tenant_a: Organisation
) -> None:
    with Bench(servers) as own:
        made = batch_of(own, tenant_a, 1)
        set_deployment_enabled(context=TESTS, deployment_id=own.served.deployment_id, enabled=False)
        made.finish()
        assert (made.state, made.counts) == (BatchState.COMPLETED, (1, 0, 1))
        assert made.errors()[0]["response"]["body"]["error"]["code"] == "model_not_found"


# -- ending early ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_end_early_keeps_what_is_finished_and_names_the_rest(
    bench: Bench, tenant_a: Organisation, how: str
) -> None:
    made = batch_of(bench, tenant_a, 100)
    made.step()
    made.step()
    assert len(made.jobs()) == 64
    assert made.work(10) == 10
    getattr(made, how)()
    ended = BatchState.CANCELLED if how == "cancel" else BatchState.EXPIRED
    for _ in range(20):
        made.step()
        bench.sweep()
    assert made.state == ended
    assert made.counts == (100, 10, 90)
    assert len(made.results()) == 10
    code = "batch_cancelled" if how == "cancel" else "batch_expired"
    assert [e["error"]["code"] for e in made.errors()] == [code] * 90
    ids = [r["custom_id"] for r in made.results() + made.errors()]
    assert sorted(ids) == sorted(f"id-{n}" for n in range(100))
    assert len(made.jobs()) == 64
    assert bench.window(tenant_a.id)["active"] == 0


def test_cancel_while_validating_runs_nothing(bench: Bench, tenant_a: Organisation) -> None:
    made = batch_of(bench, tenant_a, 1100)
    made.step()
    made.cancel()
    made.step()
    assert (made.state, made.counts) == (BatchState.CANCELLED, (0, 0, 0))
    assert made.facts.output_file_id is made.facts.error_file_id is None
    assert made.jobs() == []


def test_step_of_an_input_that_was_altered_ends_the_batch(
    bench: Bench, tenant_a: Organisation
) -> None:
    validating, fed = batch_of(bench, tenant_a, 2), batch_of(bench, tenant_a, 2)
    fed.step()
    for made in (validating, fed):
        bench.superuser.execute(
            "UPDATE inference_filechunk SET content = 'x' || content WHERE file_id = %s",
            [made.input_id],
        )
        made.finish()
        assert made.state == BatchState.FAILED
        assert [e["code"] for e in made.facts.errors] == ["input_unreadable"]
        assert made.jobs() == []
