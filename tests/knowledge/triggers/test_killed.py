"""io workers that are killed while events come in: each event starts its app once."""

import httpx

from inference.models import Job
from knowledge.models import StreamEvent, TriggerRun
from portal.core.tenancy import tenant_scope
from tests import factories
from tests.factories import Organisation, unique
from tests.knowledge.triggers.support import STREAM, Writer, make_trigger, runs_of
from tests.live import LivePortal, Programs
from tests.waiting import eventually

EVENTS = 40
KILLS = 2


def test_killed_io_workers_lose_no_event_and_start_none_twice(
    live_portal: LivePortal, programs: Programs, tenant_a: Organisation, writer: Writer
) -> None:
    trigger = make_trigger(tenant_a, writer)
    token = factories.api_key(tenant_a, scopes=["events"]).token
    with live_portal.client(token) as sender:
        _send(sender, 0)

        def started() -> int:
            with tenant_scope(tenant_a.context):
                return TriggerRun.objects.exclude(job_id=None).count()

        for kill in range(KILLS):
            worker = programs.io(name=unique("io-triggers"), WEBHOOK_SLOTS="0", DOCUMENT_SLOTS="0")
            before = started()

            def more(least: int = before) -> bool:
                return started() > least

            eventually(more, within=60, every=0.005, what="a start")
            worker.kill()
            _send(sender, kill + 1)
        programs.io(name=unique("io-triggers"), WEBHOOK_SLOTS="0", DOCUMENT_SLOTS="0")
        expected = EVENTS * (KILLS + 1)
        eventually(lambda: started() == expected, within=90, every=0.1, what=lambda: str(started()))
    runs = runs_of(tenant_a, trigger)
    assert len({run.cause for run in runs}) == len(runs) == expected
    with tenant_scope(tenant_a.context):
        assert not StreamEvent.objects.exclude(wake_at=None).exists()
        jobs = set(Job.objects.filter(api_key_id=trigger.api_key_id).values_list("pk", flat=True))
    assert {run.job_id for run in runs} == jobs


def _send(sender: httpx.Client, batch: int) -> None:
    """Sends a batch twice, as a caller does that heard no answer."""
    events = [{"subject": f"account-{n % 7}", "data": {"n": n}} for n in range(EVENTS)]
    for accepted in (EVENTS, 0):
        answer = sender.post(
            "/api/v1/events",
            json={"stream": STREAM, "events": events},
            headers={"Idempotency-Key": f"batch-{batch}"},
        )
        assert answer.status_code == 202, answer.text
        assert answer.json() == {"accepted": accepted, "repeated": EVENTS - accepted}
