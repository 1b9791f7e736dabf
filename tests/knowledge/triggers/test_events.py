"""Events from their acceptance to what they start."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from knowledge.models import StreamEvent, TriggerRunState
from knowledge.triggers.intake import MOST_EVENTS, Accepted, Incoming, accept_events
from knowledge.triggers.keeping import drop_expired
from knowledge.triggers.matching import event_step
from knowledge.triggers.services import edit_trigger
from knowledge.triggers.vault import contents_of
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, Invalid
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation
from tests.knowledge.triggers.support import (
    BIG,
    MANY,
    NOW,
    STREAM,
    Writer,
    look,
    make_trigger,
    runs_of,
    send,
)


def test_event_that_meets_a_rule_starts_the_app_once(
    tenant_a: Organisation, writer: Writer
) -> None:
    trigger = make_trigger(tenant_a, writer, rules=[BIG], inputs={"report": "$findings"})
    send(tenant_a, {"amount": 5}, {"amount": 1500})
    look(tenant_a)
    (run,) = runs_of(tenant_a, trigger)
    assert (run.state, run.score) == (TriggerRunState.WAITING, 1)
    with tenant_scope(tenant_a.context):
        contents = contents_of(run)
        first = StreamEvent.objects.order_by("id").values_list("pk", flat=True)[0]
    assert contents is not None
    assert contents.inputs == {"report": "- big: amount is 1500"}
    assert not event_step(tenant_a.id, first), "it was looked at"


def test_rules_weigh_together_up_to_the_threshold(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer, rules=[{**BIG, "weight": 2}, MANY], threshold=3)
    send(tenant_a, {"amount": 9000}, {"amount": 1}, {"amount": 1})
    send(tenant_a, {"amount": 9000}, subject="account-2")
    look(tenant_a)
    assert runs_of(tenant_a, trigger) == []
    send(tenant_a, {"amount": 9000}, at=NOW + timedelta(seconds=10))
    look(tenant_a)
    (run,) = runs_of(tenant_a, trigger)
    assert run.score == 3


def test_trigger_without_rules_starts_for_each_event_of_its_stream(
    tenant_a: Organisation, writer: Writer
) -> None:
    all_of_them = make_trigger(tenant_a, writer)
    other = make_trigger(tenant_a, writer, stream="devices")
    off = make_trigger(tenant_a, writer, enabled=False)
    send(tenant_a, {"n": 1}, {"n": 2})
    look(tenant_a)
    assert [len(runs_of(tenant_a, t)) for t in (all_of_them, other, off)] == [2, 0, 0]


def test_pause_lets_a_subject_start_once(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer, rules=[BIG], cooldown_minutes=30)
    send(tenant_a, {"amount": 2000}, {"amount": 3000})
    send(tenant_a, {"amount": 2000}, subject="account-2")
    look(tenant_a)
    assert len(runs_of(tenant_a, trigger)) == 2
    edit_trigger(context=tenant_a.owner.context, trigger_id=trigger.pk, cooldown_minutes=0)
    send(tenant_a, {"amount": 2000})
    look(tenant_a)
    assert len(runs_of(tenant_a, trigger)) == 3


def test_event_sent_again_is_the_same_event(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer)
    context = tenant_a.owner.context
    one = Incoming({"n": 1}, id="t-1")
    assert accept_events(context=context, stream=STREAM, events=[one, one]) == Accepted(1, 1)
    assert accept_events(context=context, stream=STREAM, events=[one]) == Accepted(0, 1)
    for expected in (Accepted(2, 0), Accepted(0, 2)):
        assert send(tenant_a, {"n": 2}, {"n": 2}, idempotency_key="batch-7") == expected
    assert send(tenant_a, {"n": 2}) == Accepted(1, 0)
    look(tenant_a)
    assert len(runs_of(tenant_a, trigger)) == 4


def test_event_is_stored_encrypted(tenant_a: Organisation, owner_sql: Any) -> None:
    send(tenant_a, {"note": "wonderful secret"}, subject="iban-42")
    with tenant_scope(tenant_a.context):
        (row,) = StreamEvent.objects.values()
    for value in row.values():
        plain = bytes(value) if isinstance(value, memoryview | bytes) else str(value).encode()
        assert b"secret" not in plain
        assert b"iban" not in plain


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Incoming({"x": "y" * 20_000}), "takes more than"),
        (Incoming({}, at=datetime.now(UTC) + timedelta(hours=1)), "in the future"),
        (Incoming({}, at=datetime.now(UTC) - timedelta(days=30)), "is older than"),
        (Incoming({}, subject="a\nb"), "control characters"),
        (Incoming({"x": "a\0b"}), "NUL"),
        (Incoming({}, id="x" * 200), "an id of more than"),
    ],
)
def test_event_that_is_wrong_keeps_none_of_its_request(
    tenant_a: Organisation, event: Incoming, told: str
) -> None:
    context = tenant_a.owner.context
    with pytest.raises(Invalid, match=told):
        accept_events(context=context, stream=STREAM, events=[Incoming({"n": 1}), event])
    with tenant_scope(tenant_a.context):
        assert not StreamEvent.objects.exists()


def test_events_of_a_strange_stream_or_too_many_or_by_a_viewer_are_refused(
    tenant_a: Organisation,
) -> None:
    one = [Incoming({})]
    with pytest.raises(Invalid, match="a-z"):
        accept_events(context=tenant_a.context, stream="Pay ments", events=one)
    with pytest.raises(Invalid, match="Send 1 to"):
        accept_events(context=tenant_a.context, stream=STREAM, events=one * (MOST_EVENTS + 1))
    with pytest.raises(Forbidden):
        accept_events(context=tenant_a.viewer.context, stream=STREAM, events=one)


def test_events_beyond_what_a_tenant_may_hold_are_refused(
    tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = env().model_copy(update={"max_tenant_events": 2})
    monkeypatch.setattr("knowledge.triggers.intake.env", lambda: few)
    send(tenant_a, {}, {})
    with pytest.raises(Conflict, match="hold 2 events"):
        send(tenant_a, {})


def test_sweep_drops_what_was_looked_at_and_is_old(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer, rules=[BIG])
    send(tenant_a, {"amount": 2000}, {"amount": 1})
    look(tenant_a)
    send(tenant_a, {"amount": 1})
    (run,) = runs_of(tenant_a, trigger)
    old = datetime.now(UTC) - timedelta(seconds=1)
    with tenant_scope(tenant_a.context):
        StreamEvent.objects.update(expires_at=old)
    drop_expired(env().database_url("gateway"))
    with tenant_scope(tenant_a.context):
        assert StreamEvent.objects.exclude(wake_at=None).count() == 1, "accepted is not lost"
        assert StreamEvent.objects.count() == 1
    assert runs_of(tenant_a, trigger) == [run]


def test_events_of_one_tenant_start_nothing_in_another(
    tenant_a: Organisation, tenant_b: Organisation, writer: Writer
) -> None:
    ours, theirs = make_trigger(tenant_a, writer), make_trigger(tenant_b, writer)
    send(tenant_a, {"n": 1})
    look(tenant_a)
    look(tenant_b)
    assert (len(runs_of(tenant_a, ours)), len(runs_of(tenant_b, theirs))) == (1, 0)
