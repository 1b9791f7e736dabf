"""The live part of a deployment's page: its figures and its workers, as of now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.admin.words import about, duration_text
from inference.models import Deployment, DesiredState, Worker, WorkerState
from inference.worker_selectors import Load, is_silent, load_of, pending, stale_reasons
from inference.worker_services import WorkerOrder, refusal_of
from portal.core.pages import Text, in_words, may
from tenants.permissions import Action

WORKER_STATE_KINDS = {
    "loading": "info",
    "ready": "success",
    "draining": "warning",
    "drained": "warning",
    "unloaded": "default",
    "stopped": "default",
    "failed": "danger",
}
ORDER_TITLES: dict[WorkerOrder, Text] = {
    WorkerOrder.LOAD: _("Load"),
    WorkerOrder.RESUME: _("Resume"),
    WorkerOrder.DRAIN: _("Drain"),
    WorkerOrder.UNLOAD: _("Unload"),
}
_STALE_WORDS: dict[str, Text] = {
    "version": _("version"),
    "engine": _("engine"),
    "options": _("engine options"),
    "context_length": _("context length"),
}
_COMMAND = (
    "WORKER_DEPLOYMENT={name} FREEHOLD_DATABASE_ROLE=gateway celery -A portal.celery worker "
    "--pool=threads --concurrency=2 -Q {queue} --without-gossip --without-mingle"
)


@dataclass(frozen=True, slots=True)
class Button:
    """A link to the page that asks before an order is given."""

    title: Text
    link: str


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker in the table; ``kind`` is the colour of its state."""

    worker: Worker
    kind: str
    state: str
    progress: str
    stale: str
    buttons: Sequence[Button]


def state_of(worker: Worker, now: datetime) -> tuple[str, str]:
    """The colour and the word of a worker's state."""
    if is_silent(worker, now):
        return "danger", gettext("Not heard of")
    return WORKER_STATE_KINDS[worker.state], str(worker.get_state_display())


def progress_of(worker: Worker, now: datetime) -> str:
    """What a worker is at, in words: the phase of a load, how many jobs are left, why it failed."""
    said = [in_words(worker.detail)] if worker.detail else []
    if is_silent(worker, now):
        return " ".join([*said, *_later(worker)])
    span = duration_text(now.replace(microsecond=0) - worker.state_since.replace(microsecond=0))
    if worker.state == WorkerState.LOADING:
        said.append(gettext("For %(span)s.") % {"span": span})
    elif worker.state == WorkerState.DRAINING:
        said.append(gettext("%(n)s left, for %(span)s.") % {"n": worker.running, "span": span})
    elif pending(worker) and worker.state != WorkerState.STOPPED:
        said.append(
            gettext("Told to be: %(state)s.") % {"state": worker.get_desired_state_display()}
        )
    elif worker.state == WorkerState.STOPPED:
        said += _later(worker)
    return " ".join(said)


def _later(worker: Worker) -> list[str]:
    """What the one that is started in its place will be, where that is not to serve."""
    if worker.desired_state == DesiredState.SERVING:
        return []
    wanted = {"state": worker.get_desired_state_display()}
    return [gettext("Started again on its host it will be: %(state)s.") % wanted]


def stale_text(worker: Worker) -> str:
    """What the worker holds otherwise than its deployment says, in words; empty for nothing."""
    return ", ".join(str(_STALE_WORDS[reason]) for reason in stale_reasons(worker))


def start_command(deployment: Deployment) -> str:
    """The command that starts a worker of the deployment."""
    return _COMMAND.format(name=deployment.name, queue=deployment.queue)


def _row(worker: Worker, now: datetime, *, edits: bool) -> WorkerRow:
    kind, state = state_of(worker, now)
    buttons = [
        Button(title, reverse(f"admin:inference_worker_{order}", args=[worker.pk]))
        for order, title in ORDER_TITLES.items()
        if edits and not refusal_of(worker, order)
    ]
    return WorkerRow(worker, kind, state, progress_of(worker, now), stale_text(worker), buttons)


def _figures(load: Load, *, queued: bool) -> list[tuple[Text, str]]:
    wait = load.wait_seconds
    unknown = gettext("not known yet")
    return [
        (_("Jobs waiting"), str(load.queued) if queued else "—"),
        (_("Worked off in"), unknown if wait is None else about(wait) if wait else "—"),
        (_("Running"), f"{load.running} / {load.slots}"),
        (_("Ready workers"), f"{load.ready} / {load.workers}"),
        (_("Tokens a second"), f"{load.tokens_per_second:,.1f}"),
    ]


def live_context(
    request: HttpRequest, deployment: Deployment, queued: int | None
) -> dict[str, Any]:
    """What the live part shows.

    Args:
        queued: jobs that wait; None where that is not told.
    """
    now = timezone.now()
    rows = list(deployment.workers.all())
    for worker in rows:
        worker.deployment = deployment
    load = load_of(deployment, queued or 0, rows)
    edits = may(request, Action.DEPLOYMENT_EDIT)
    return {
        "figures": _figures(load, queued=queued is not None),
        "memory_bytes": load.memory_bytes,
        "rows": [_row(worker, now, edits=edits) for worker in rows],
        "command": start_command(deployment),
        "served": any(not is_silent(w, now) and w.state != WorkerState.STOPPED for w in rows),
    }
