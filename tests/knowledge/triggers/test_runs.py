"""Runs from their start to their outcome, with refusals, alerts and schedules."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inference.models import Job, WebhookDelivery, WebhookState
from inference.webhooks.services import make_webhook_secret
from knowledge.applications.services import withdraw_app
from knowledge.models import Trigger, TriggerRunState
from knowledge.triggers.keeping import drop_expired
from knowledge.triggers.matching import schedule_step
from knowledge.triggers.services import (
    create_trigger,
    delete_trigger,
    edit_trigger,
    start_trigger,
)
from knowledge.triggers.vault import contents_of
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey
from tenants.services import revoke_api_key, set_quota
from tests.factories import Organisation
from tests.knowledge.apps.support import make_app
from tests.knowledge.triggers.support import (
    BIG,
    Writer,
    look,
    make_trigger,
    runs_of,
    send,
    step_runs,
)

RISKY = {"type": "compare", "field": "risk", "op": "==", "value": "high"}


def finish(tenant: Organisation, writer: Writer, answer: str) -> list[Any]:
    """Starts what waits, answers it, and writes down the answers; what was asked."""
    look(tenant)
    step_runs(tenant)
    asked = writer.answer(answer)
    step_runs(tenant)
    return asked


def answer_of(tenant: Organisation, run: Any) -> str | None:
    with tenant_scope(tenant.context):
        contents = contents_of(run)
    return None if contents is None else contents.answer


def test_run_asks_the_app_and_keeps_its_answer(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer)
    send(tenant_a, {"amount": 7})
    (prompt,) = finish(tenant_a, writer, "fine")
    assert prompt.messages[-1].content == 'Judge this:\n{"amount":7}'
    (run,) = runs_of(tenant_a, trigger)
    assert (run.state, run.alert, run.app_version) == (TriggerRunState.SUCCEEDED, False, 1)
    assert answer_of(tenant_a, run) == "fine"
    with tenant_scope(tenant_a.context):
        job = Job.objects.get(api_key_id=trigger.api_key_id)
        assert job.pk == run.job_id
        assert job.parameters["metadata"] == {"trigger": trigger.name, "run": str(run.pk)}
        assert job.api_key_id == trigger.api_key_id


def test_run_of_a_killed_worker_is_taken_up_without_a_second_job(
    tenant_a: Organisation, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = make_trigger(tenant_a, writer)
    send(tenant_a, {"amount": 7})
    look(tenant_a)

    class Killed(BaseException):
        pass

    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("knowledge.models.TriggerRun.save", die)
        with pytest.raises(Killed):
            step_runs(tenant_a)
    finish(tenant_a, writer, "fine")
    (run,) = runs_of(tenant_a, trigger)
    assert run.state == TriggerRunState.SUCCEEDED
    with tenant_scope(tenant_a.context):
        assert Job.objects.filter(api_key_id=trigger.api_key_id).count() == 1


def test_alert_is_told_by_a_signed_webhook_of_the_job(
    tenant_a: Organisation, writer: Writer
) -> None:
    make_webhook_secret(context=tenant_a.owner.context)
    trigger = make_trigger(
        tenant_a, writer, alert_when=RISKY, notify_url="http://127.0.0.1:9999/hook?key=1"
    )
    assert trigger.receiver == "http://127.0.0.1:9999"
    assert b"hook" not in bytes(trigger.sealed_url or b"")
    for answer, alert in (
        ('{"risk": "low"}', False),
        ("no JSON", False),
        ('{"risk": "high"}', True),
    ):
        send(tenant_a, {"amount": 7})
        finish(tenant_a, writer, answer)
        run = runs_of(tenant_a, trigger)[-1]
        assert (run.state, run.alert) == (TriggerRunState.SUCCEEDED, alert)
        with tenant_scope(tenant_a.context):
            found = WebhookDelivery.objects.filter(job_id=run.job_id or run.pk).first()
        assert (found is not None) is alert
    assert found is not None
    assert found.state == WebhookState.PENDING
    assert found.due_at is not None


def test_webhook_without_a_secret_to_sign_it_is_refused(
    tenant_a: Organisation, writer: Writer
) -> None:
    with pytest.raises(Conflict, match="signing secret"):
        make_trigger(tenant_a, writer, notify_url="http://127.0.0.1:9999/hook")


def test_run_waits_out_a_quota_and_fails_without_a_key(
    tenant_a: Organisation, writer: Writer
) -> None:
    trigger = make_trigger(tenant_a, writer)
    with tenant_scope(tenant_a.context):
        key = ApiKey.objects.get(pk=trigger.api_key_id)
    set_quota(context=tenant_a.owner.context, api_key_id=key.pk, requests_day=1)
    for _ in range(2):
        send(tenant_a, {"n": 1})
        look(tenant_a)
        step_runs(tenant_a)
    first, second = runs_of(tenant_a, trigger)
    assert first.state == TriggerRunState.RUNNING
    assert (second.state, second.job_id) == (TriggerRunState.WAITING, None)
    assert "limit" in second.waiting_for.lower() or "quota" in second.waiting_for.lower()
    revoke_api_key(context=tenant_a.owner.context, api_key_id=key.pk, reason="rotated")
    step_runs(tenant_a)
    failed = runs_of(tenant_a, trigger)[-1]
    assert failed.state == TriggerRunState.FAILED
    assert "save the trigger's settings" in failed.error
    edit_trigger(context=tenant_a.owner.context, trigger_id=trigger.pk, name="again")
    send(tenant_a, {"n": 1})
    look(tenant_a)
    step_runs(tenant_a)
    assert runs_of(tenant_a, trigger)[-1].state == TriggerRunState.RUNNING


def test_run_of_an_app_that_is_not_published_fails_in_words(
    tenant_a: Organisation, writer: Writer
) -> None:
    trigger = make_trigger(tenant_a, writer)
    withdraw_app(context=tenant_a.owner.context, app_id=trigger.app_id)
    send(tenant_a, {"n": 1})
    look(tenant_a)
    step_runs(tenant_a)
    (run,) = runs_of(tenant_a, trigger)
    assert (run.state, run.error) == (TriggerRunState.FAILED, "There is no such app.")


def test_nothing_is_kept_of_a_run_that_is_to_be_forgotten(
    tenant_a: Organisation, writer: Writer
) -> None:
    kept, forgotten = make_trigger(tenant_a, writer), make_trigger(tenant_a, writer, keep_days=0)
    send(tenant_a, {"n": 1})
    finish(tenant_a, writer, "fine")
    assert answer_of(tenant_a, runs_of(tenant_a, forgotten)[0]) is None
    (run,) = runs_of(tenant_a, kept)
    assert answer_of(tenant_a, run) == "fine"
    with tenant_scope(tenant_a.context):
        type(run).objects.filter(pk=run.pk).update(
            expires_at=datetime.now(UTC) - timedelta(seconds=1)
        )
    drop_expired(env().database_url("gateway"))
    (run,) = runs_of(tenant_a, kept)
    assert (run.state, run.sealed) == (TriggerRunState.SUCCEEDED, None)


def test_schedule_starts_once_for_all_that_was_missed(
    tenant_a: Organisation, writer: Writer
) -> None:
    trigger = make_trigger(
        tenant_a, writer, kind="schedule", schedule="*/5 * * * *", inputs={"report": "weekly"}
    )
    assert trigger.next_at is not None
    assert not schedule_step(tenant_a.id, trigger.pk), "it is not due"
    missed = datetime.now(UTC) - timedelta(hours=3)
    with tenant_scope(tenant_a.context):
        Trigger.objects.filter(pk=trigger.pk).update(next_at=missed)
    assert schedule_step(tenant_a.id, trigger.pk)
    assert not schedule_step(tenant_a.id, trigger.pk)
    (prompt,) = finish(tenant_a, writer, "fine")
    assert prompt.messages[-1].content == "Judge this:\nweekly"
    (run,) = runs_of(tenant_a, trigger)
    assert run.cause == missed.isoformat()


def test_schedule_that_is_switched_off_never_comes(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer, kind="schedule", schedule="*/5 * * * *")
    off = edit_trigger(context=tenant_a.owner.context, trigger_id=trigger.pk, enabled=False)
    assert off.next_at is None
    on = edit_trigger(context=tenant_a.owner.context, trigger_id=trigger.pk, enabled=True)
    assert on.next_at is not None


def test_start_by_hand_runs_with_the_inputs_given(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer)
    context = tenant_a.developer.context
    start_trigger(context=context, trigger_id=trigger.pk, inputs={"report": "by hand"})
    (prompt,) = finish(tenant_a, writer, "fine")
    assert prompt.messages[-1].content == "Judge this:\nby hand"
    with pytest.raises(Invalid, match="no input"):
        start_trigger(context=context, trigger_id=trigger.pk, inputs={"x": 1})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stream": ""}, "'stream' is needed"),
        ({"kind": "schedule"}, "'schedule' is needed"),
        ({"kind": "schedule", "schedule": "0 0 * * *", "rules": [BIG]}, "no rules"),
        ({"kind": "mail"}, "must be one of"),
        ({"inputs": {"nothing": "$event"}}, "no input of this app"),
        ({"inputs": {"report": "$everything"}}, "names what there is not"),
        ({"keep_days": 400}, "0 to 365"),
        ({"threshold": 0}, "above 0"),
        ({"cooldown_minutes": -1}, "0 to 1440"),
        ({"alert_when": {"type": "compare"}}, "alert_when"),
        ({"colour": 1}, "can't be set"),
    ],
)
def test_trigger_that_is_wrong_says_what_is(
    tenant_a: Organisation, writer: Writer, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid, match=told):
        make_trigger(tenant_a, writer, **settings)


def test_triggers_of_another_tenant_are_not_there(
    tenant_a: Organisation, tenant_b: Organisation, writer: Writer
) -> None:
    trigger = make_trigger(tenant_a, writer)
    for verb in (edit_trigger, start_trigger, delete_trigger):
        with pytest.raises(NotFound):
            verb(context=tenant_b.owner.context, trigger_id=trigger.pk)
        with pytest.raises(Forbidden):
            verb(context=tenant_a.viewer.context, trigger_id=trigger.pk)
    with pytest.raises(NotFound):
        create_trigger(
            context=tenant_b.owner.context,
            app_id=trigger.app_id,
            name="x",
            kind="event",
            stream="s",
        )
    with pytest.raises(Invalid, match="holds conversations"):
        create_trigger(
            context=tenant_a.owner.context,
            app_id=make_app(tenant_a, writer.model).pk,
            name="x",
            kind="event",
            stream="s",
        )
    with pytest.raises(Conflict, match="of this name"):
        edit_trigger(
            context=tenant_a.owner.context,
            trigger_id=make_trigger(tenant_a, writer).pk,
            name=trigger.name,
        )
    delete_trigger(context=tenant_a.owner.context, trigger_id=trigger.pk)
    assert runs_of(tenant_a, trigger) == []
