"""Triggers made as the product makes them, and taken step by step."""

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from inference.models import Deployment, JobState
from inference.payloads import Ciphers, Prompt, unpack_prompt
from inference.settlement import Settlement, settle
from knowledge.models import StreamEvent, Trigger, TriggerRun
from knowledge.triggers.intake import Accepted, Incoming, accept_events
from knowledge.triggers.matching import event_step
from knowledge.triggers.running import run_step
from knowledge.triggers.services import create_trigger
from portal.core.crypto import Keyring
from portal.core.env import env
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, unique
from tests.inference.bench import claim
from tests.knowledge.apps.support import make_app
from tests.live import deploy
from tests.servers import SessionServers

STREAM = "payments"
NOW = datetime.now(UTC) - timedelta(minutes=1)

BIG = {"name": "big", "when": {"type": "compare", "field": "amount", "op": ">=", "value": 1000}}
MANY = {
    "name": "many",
    "when": {"type": "window", "measure": "count", "minutes": 10, "op": ">=", "value": 3},
}


class Writer:
    """A deployment whose jobs are answered by hand, one after the other, while a test waits."""

    def __init__(self, servers: SessionServers) -> None:
        self.model = deploy(servers, unique("writer")).model
        self._worker = psycopg.connect(servers.url("gateway"), autocommit=True)
        self._deployment = Deployment.objects.get(name=self.model).id
        self._ciphers = Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()))

    def close(self) -> None:
        self._worker.close()

    def answer(self, write: Callable[[Prompt], str] | str) -> list[Prompt]:
        """Answers every job that waits; what they asked."""
        asked = []
        for job in claim(self._worker, self._deployment, 50):
            cipher = self._ciphers.of(job.tenant_id, job.data_key_version, job.data_key)
            prompt = unpack_prompt(cipher.decrypt(job.prompt, row_id=job.id))
            asked.append(prompt)
            text = write if isinstance(write, str) else write(prompt)
            sealed = cipher.encrypt(text.encode(), row_id=job.id)
            done = Settlement(
                job.id,
                JobState.RUNNING,
                JobState.SUCCEEDED,
                fence=job.fence,
                answer=base64.b64encode(sealed).decode(),
                finish_reason="stop",
            )
            with self._worker.transaction():
                settle(self._worker, [done])
        return asked


def make_trigger(tenant: Organisation, writer: Writer, **settings: Any) -> Trigger:
    """A trigger of an app with one input, ``report``."""
    app = make_app(
        tenant,
        writer.model,
        mode="run",
        prompt="Judge this:\n{{report}}",
        inputs=[{"name": "report", "required": False}],
    )
    settings.setdefault("inputs", {"report": "$event"})
    if settings.setdefault("kind", "event") == "event":
        settings.setdefault("stream", STREAM)
    context = tenant.owner.context
    return create_trigger(context=context, app_id=app.pk, name=unique("Watch"), **settings)


def send(tenant: Organisation, *data: Mapping[str, Any], **more: Any) -> Accepted:
    """Sends events of one subject, a second apart."""
    subject = more.pop("subject", "account-1")
    at = more.pop("at", NOW)
    events = [
        Incoming(one, subject=subject, at=at + timedelta(seconds=place))
        for place, one in enumerate(data)
    ]
    return accept_events(context=tenant.owner.context, stream=STREAM, events=events, **more)


def look(tenant: Organisation) -> None:
    """Has the triggers look at every event that is due."""
    with tenant_scope(tenant.context):
        due = StreamEvent.objects.exclude(wake_at=None).order_by("id")
        ids = list(due.values_list("pk", flat=True))
    for event_id in ids:
        event_step(tenant.id, event_id)


def step_runs(tenant: Organisation) -> None:
    """Takes one step of every run that is under way."""
    with tenant_scope(tenant.context):
        due = TriggerRun.objects.exclude(wake_at=None)
        due.update(wake_at=datetime.now(UTC) - timedelta(seconds=1))
        ids = list(due.order_by("id").values_list("pk", flat=True))
    for run_id in ids:
        run_step(tenant.id, run_id)


def runs_of(tenant: Organisation, trigger: Trigger) -> list[TriggerRun]:
    """The trigger's runs, oldest first."""
    with tenant_scope(tenant.context):
        found = TriggerRun.objects.filter(trigger_id=trigger.pk).select_related("trigger")
        return list(found.order_by("id"))
