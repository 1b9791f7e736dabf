"""Runs of apps that triggers start, in steps that a crash can't undo or do twice.

What there is to do stands in the run's row. A step locks it; the job is noted in the transaction
that admits it, so there is never a second one.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec
from django.utils import timezone

from inference.batches.refusals import passes
from inference.jobs.results import Gone, read_result
from inference.jobs.submission import JobRequest, submit
from inference.models import Job, JobState
from inference.models.jobs import ENDED
from inference.webhooks.services import register_callbacks
from inference.webhooks.targets import clean_url, targets
from knowledge.accounts import TRIGGERS, NoKey, spending_context, usable_key
from knowledge.applications.backends import AppCall
from knowledge.applications.selectors import published_version
from knowledge.applications.spec import check_inputs, read_spec
from knowledge.models import App, AppMode, AppVersion, Trigger, TriggerRun, TriggerRunState
from knowledge.runner.runner import prepare
from knowledge.trail import record_about
from knowledge.triggers.events import TriggerEvent
from knowledge.triggers.inputs import Inputs
from knowledge.triggers.rules import holds, read_condition
from knowledge.triggers.vault import contents_of, json_object, seal_contents, url_of
from portal.core.actors import Context
from portal.core.errors import PortalError
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey

RECORD_DAYS: Final = 365
"""So long it is kept that a run was; what it held is kept as its trigger says."""

_RESULT_SECONDS: Final = 3600
_LOOK_AGAIN: Final = timedelta(seconds=0.5)
_MOST_REST_SECONDS: Final = 60.0
_NOTHING_KEPT: Final = "What the run was given is not kept any more."


def run_step(tenant_id: UUID, run_id: UUID) -> bool:
    """Takes the next step of a run that is due; whether there was one."""
    context = Context.system("triggers", tenant_id=tenant_id)
    with tenant_scope(context):
        due = TriggerRun.objects.filter(pk=run_id, wake_at__lte=timezone.now())
        locked = due.select_for_update(skip_locked=True, no_key=True, of=("self",))
        run = locked.select_related("trigger__app").first()
        if run is None:
            return False
        try:
            if run.job_id is None:
                _start(context, run)
            else:
                _collect(run, run.job_id)
        except PortalError as refusal:
            _end(run, TriggerRunState.FAILED, refusal.message)
        run.save()
    return True


def _start(context: Context, run: TriggerRun) -> None:
    """Has the app's published version answer, as a job of the portal's own key."""
    contents = contents_of(run)
    if contents is None:
        raise Gone(_NOTHING_KEPT)
    app = run.trigger.app
    version = published_version(app)
    fitted = prepare(run_call(context, app, version, run.pk, contents.inputs))
    key = usable_key(run.trigger.api_key_id)
    if key is None:
        raise NoKey("trigger", TRIGGERS)
    request = JobRequest(
        fitted.body,
        result_seconds=_RESULT_SECONDS,
        metadata={"trigger": run.trigger.name, "run": str(run.pk)},
    )
    (outcome,) = submit(
        context=spending_context(key, f"run_{run.pk.hex}"), requests=[request], passes=passes
    )
    if outcome.passes and outcome.error is not None:
        # Such as a quota that is used up: it is waited for.
        rest = min(max(1.0, outcome.error.retry_after or 1.0), _MOST_REST_SECONDS)
        run.waiting_for = outcome.error.message[:500]
        run.wake_at = timezone.now() + timedelta(seconds=rest)
        return
    if outcome.error is not None:
        raise outcome.error
    run.job_id, run.app_version = outcome.job_id, version.number
    run.state, run.waiting_for = TriggerRunState.RUNNING, ""
    run.wake_at = timezone.now() + _LOOK_AGAIN


def run_call(
    context: Context, app: App, version: AppVersion, run_id: UUID, inputs: Inputs
) -> AppCall:
    """One run of an app, as its runner takes it.

    Raises:
        Invalid: naming the input that is wrong.
    """
    spec = read_spec(version.spec)
    return AppCall(
        context=context,
        app_id=app.pk,
        slug=app.slug,
        mode=AppMode(app.mode),
        version=version.number,
        spec=spec,
        conversation_id=run_id,
        message_id=run_id,
        inputs=check_inputs(spec, inputs),
    )


def _collect(run: TriggerRun, job_id: UUID) -> None:
    """Writes down the answer of the job under way, once it has ended."""
    job = Job.objects.filter(pk=job_id).first()
    if job is not None and job.state not in ENDED:
        run.wake_at = timezone.now() + _LOOK_AGAIN
        return
    if job is None or job.state != JobState.SUCCEEDED:
        _end(
            run, TriggerRunState.FAILED, "" if job is None else job.error_message or job.error_code
        )
        return
    contents = contents_of(run)
    answer = _answer(run.trigger.api_key_id, job)
    if contents is not None:
        seal_contents(run, msgspec.structs.replace(contents, answer=answer))
    run.alert = _is_alert(run.trigger, answer)
    _end(run, TriggerRunState.SUCCEEDED)
    if run.alert:
        _tell(run, job_id)


def _answer(api_key_id: UUID, job: Job) -> str:
    # Whether the key may still be used does not matter to what it has paid for.
    key = ApiKey.objects.get(pk=api_key_id)
    result = msgspec.json.decode(
        read_result(context=spending_context(key, job.request_id), job_id=job.pk)
    )
    text: str = result["choices"][0]["message"]["content"] or ""
    return text


def _is_alert(trigger: Trigger, answer: str) -> bool:
    if trigger.alert_when is None:
        return False
    found = json_object(answer)
    return found is not None and holds(read_condition(trigger.alert_when, "alert_when"), found)


def _end(run: TriggerRun, state: TriggerRunState, error: str = "") -> None:
    now = timezone.now()
    run.state, run.error, run.waiting_for = state, error[:500], ""
    run.wake_at, run.finished_at = None, now
    if not run.trigger.keep_days:
        run.sealed, run.expires_at = None, now + timedelta(days=RECORD_DAYS)


def _tell(run: TriggerRun, job_id: UUID) -> None:
    """Tells the trail, and the receiver if there is one: a webhook of the job that found it."""
    trigger = run.trigger
    record_about(TriggerEvent.ALERT, trigger, detail={"run": str(run.pk), "job": str(job_id)})
    if trigger.sealed_url is not None:
        url = url_of(
            trigger.tenant_id, trigger.data_key_version, trigger.pk, bytes(trigger.sealed_url)
        )
        register_callbacks(
            tenant_id=trigger.tenant_id, urls={job_id: clean_url(url, targets())}, ended=True
        )
