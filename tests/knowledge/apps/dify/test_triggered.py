"""Runs of triggers whose app runs in Dify: called once, told of, and never twice."""

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from inference.models import WebhookDelivery
from inference.webhooks.services import make_webhook_secret
from knowledge.applications.dify.waiting import Answered
from knowledge.models import Trigger, TriggerRun, TriggerRunState
from knowledge.triggers import remote
from knowledge.triggers.running import run_step
from knowledge.triggers.services import create_trigger, start_trigger
from knowledge.triggers.vault import contents_of
from portal.core.actors import Context
from portal.core.tenancy import tenant_scope
from tests.factories import unique
from tests.knowledge.apps.dify.bench import AppBench
from tests.waiting import eventually

ANSWER = "Vacation is twenty five days. "
RISKY = {"type": "compare", "field": "risk", "op": "==", "value": "high"}


def triggered(bench: AppBench, *, settled: bool = True, **settings: Any) -> Trigger:
    """Of an app that is live in Dify."""
    inputs = [{"name": "report", "required": False}]
    app = bench.app(mode="run", prompt="Judge: {{report}}", inputs=inputs)
    if settled:
        bench.settle()
    return create_trigger(
        context=bench.context,
        app_id=app.pk,
        name=unique("Watch"),
        kind="schedule",
        schedule="1440",
        **settings,
    )


def begin(bench: AppBench, trigger: Trigger, report: str = "All is well.") -> TriggerRun:
    run = start_trigger(context=bench.context, trigger_id=trigger.pk, inputs={"report": report})
    assert run_step(run.tenant_id, run.pk)
    return run


def now(run: TriggerRun) -> TriggerRun:
    with tenant_scope_of(run):
        return TriggerRun.objects.select_related("trigger__app").get(pk=run.pk)


def tenant_scope_of(run: TriggerRun) -> AbstractContextManager[None]:
    return tenant_scope(Context.system("test", tenant_id=run.tenant_id))


def ended(run: TriggerRun) -> TriggerRun:
    eventually(lambda: now(run).finished_at, within=20, what=lambda: now(run).waiting_for)
    return now(run)


def answer_of(run: TriggerRun) -> str:
    with tenant_scope_of(run):
        contents = contents_of(now(run))
    assert contents is not None
    return contents.answer


def test_run_is_answered_by_dify_once(bench: AppBench) -> None:
    run = ended(begin(bench, triggered(bench)))
    assert (run.state, run.app_version, run.job_id) == (TriggerRunState.SUCCEEDED, 1, None)
    assert answer_of(run) == ANSWER
    (asked,) = bench.double.apps.model.asked
    assert asked[-1]["content"] == "Judge: All is well."
    assert not run_step(run.tenant_id, run.pk), "nothing is left to be done"


def test_run_waits_while_its_app_is_on_its_way_to_dify(bench: AppBench) -> None:
    run = begin(bench, triggered(bench, settled=False))
    waiting = now(run)
    assert waiting.state == TriggerRunState.WAITING
    assert waiting.waiting_for.startswith("The app is being put where it is to run")
    bench.settle()
    hurry(run)
    assert run_step(run.tenant_id, run.pk)
    assert ended(run).state == TriggerRunState.SUCCEEDED


def hurry(run: TriggerRun) -> None:
    with tenant_scope_of(run):
        TriggerRun.objects.filter(pk=run.pk).update(wake_at=timezone.now() - timedelta(seconds=1))


def test_run_that_was_interrupted_is_told_so_and_not_repeated(
    bench: AppBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "call", lambda *given: remote.give_back())  # The worker dies here.
    run = begin(bench, triggered(bench))
    assert now(run).state == TriggerRunState.RUNNING
    assert not run_step(run.tenant_id, run.pk), "its lease has not run out"
    monkeypatch.undo()
    hurry(run)
    assert run_step(run.tenant_id, run.pk)
    failed = now(run)
    assert (failed.state, failed.error) == (TriggerRunState.FAILED, remote.INTERRUPTED)
    assert bench.double.apps.model.asked == []


def test_answer_that_comes_after_the_run_was_given_up_changes_nothing(
    bench: AppBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(remote, "call", lambda *given: calls.append(given))
    run = begin(bench, triggered(bench))
    hurry(run)
    assert run_step(run.tenant_id, run.pk)
    ((_asked, _target, then),) = calls
    then(Answered("Too late."))
    remote.give_back()
    assert (now(run).state, answer_of(run)) == (TriggerRunState.FAILED, "")


def test_more_runs_than_are_called_at_once_wait(
    bench: AppBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "call", lambda *given: None)
    trigger = triggered(bench)
    runs = [begin(bench, trigger) for _ in range(remote.AT_ONCE + 1)]
    states = [now(run).state for run in runs]
    assert states == [TriggerRunState.RUNNING] * remote.AT_ONCE + [TriggerRunState.WAITING]
    monkeypatch.undo()
    for _ in range(remote.AT_ONCE):
        remote.give_back()
    hurry(runs[-1])
    assert run_step(runs[-1].tenant_id, runs[-1].pk)
    assert ended(runs[-1]).state == TriggerRunState.SUCCEEDED


@pytest.mark.parametrize(
    ("fault", "state", "said"),
    [
        ("busy", TriggerRunState.WAITING, "takes no more calls"),
        ("failed", TriggerRunState.FAILED, "does not answer at the moment"),
    ],
)
def test_refusal_is_waited_for_and_a_failure_told(
    bench: AppBench, fault: Any, state: int, said: str
) -> None:
    trigger = triggered(bench)
    bench.double.fail(fault, path="workflows/run", retry_after="3")
    run = begin(bench, trigger)
    eventually(lambda: now(run).state == state, within=20, what=lambda: str(now(run).error))
    found = now(run)
    assert said in found.error + found.waiting_for


def test_alert_is_told_by_a_webhook_of_no_job(bench: AppBench) -> None:
    make_webhook_secret(context=bench.context)
    bench.double.apps.model.says = '{"risk": "high"}'
    trigger = triggered(bench, alert_when=RISKY, notify_url="http://127.0.0.1:9999/hook")
    run = ended(begin(bench, trigger))
    assert run.alert
    with tenant_scope(bench.context):
        (delivery,) = WebhookDelivery.objects.all()
    assert delivery.job_id is None
    assert delivery.event == "trigger.alert"
    assert delivery.told is not None
    assert delivery.told["data"] == {"trigger": trigger.name, "run": str(run.pk)}
