"""Runs of apps that triggers start, in steps that a crash can't undo or do twice.

What there is to do stands in the run's row. A step locks it; the job is noted in the transaction
that admits it, so there is never a second one. Apps that run in Dify are called there, as
``knowledge.triggers.remote`` says.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import msgspec
from django.utils import timezone

from inference.batches.refusals import passes
from inference.jobs.results import Gone, read_result
from inference.jobs.submission import JobRequest, submit
from inference.models import Job, JobState
from inference.models.jobs import ENDED
from inference.webhooks.services import register_callbacks, tell
from inference.webhooks.targets import clean_url, targets
from knowledge.accounts import TRIGGERS, NoKey, spending_context, usable_key
from knowledge.applications.backends import AppCall
from knowledge.applications.dify.deployed import deployment_of, standing_of
from knowledge.applications.dify.faults import AppBusy, AppNotReady
from knowledge.applications.dify.targets import target_of
from knowledge.applications.dify.waiting import Answered
from knowledge.applications.selectors import published_version
from knowledge.applications.spec import check_inputs, read_spec
from knowledge.models import (
    App,
    AppDeployment,
    AppMode,
    AppVersion,
    Trigger,
    TriggerRun,
    TriggerRunState,
)
from knowledge.runner.prompting import Fitted
from knowledge.runner.runner import prepare
from knowledge.trail import record_about
from knowledge.triggers import remote
from knowledge.triggers.events import TriggerEvent
from knowledge.triggers.inputs import Inputs
from knowledge.triggers.rules import holds, read_condition
from knowledge.triggers.vault import contents_of, json_object, seal_contents, url_of
from portal.core.actors import Context
from portal.core.errors import PortalError
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey

ALERT: Final = "trigger.alert"
"""The type of the webhook that tells of an alert of a run that Dify answered."""

RECORD_DAYS: Final = 365
"""So long it is kept that a run was; what it held is kept as its trigger says."""

_RESULT_SECONDS: Final = 3600
_LOOK_AGAIN: Final = timedelta(seconds=0.5)
_MOST_REST_SECONDS: Final = 60.0
_NOTHING_KEPT: Final = "What the run was given is not kept any more."


def run_step(tenant_id: UUID, run_id: UUID) -> bool:
    """Takes the next step of a run that is due; whether there was one."""
    context = Context.system("triggers", tenant_id=tenant_id)
    call: Callable[[], None] | None = None
    try:
        with tenant_scope(context):
            due = TriggerRun.objects.filter(pk=run_id, wake_at__lte=timezone.now())
            locked = due.select_for_update(skip_locked=True, no_key=True, of=("self",))
            run = locked.select_related("trigger__app").first()
            if run is None:
                return False
            call = _step(context, run)
            run.save()
    except BaseException:
        if call is not None:
            remote.give_back()
        raise
    if call is not None:
        # That it runs is written down.
        call()
    return True


def _step(context: Context, run: TriggerRun) -> Callable[[], None] | None:
    """Takes a run's step; gives the call that is to be made once that is written down."""
    try:
        if run.job_id is not None:
            _collect(run, run.job_id)
        elif run.state == TriggerRunState.RUNNING:
            _end(run, TriggerRunState.FAILED, remote.INTERRUPTED)
        else:
            return _start(context, run)
    except PortalError as refusal:
        _end(run, TriggerRunState.FAILED, refusal.message)
    return None


def _start(context: Context, run: TriggerRun) -> Callable[[], None] | None:
    """Has the app's published version answer, where it runs.

    Returns:
        The call to make once the run is written down, where Dify runs the app.
    """
    contents = contents_of(run)
    if contents is None:
        raise Gone(_NOTHING_KEPT)
    app = run.trigger.app
    version = published_version(app)
    key = usable_key(run.trigger.api_key_id)
    if key is None:
        raise NoKey("trigger", TRIGGERS)
    deployment = deployment_of(app)
    if deployment is not None:
        asked = run_call(spending_context(key, ""), app, version, run.pk, contents.inputs)
        return _start_there(run, app, deployment, asked)
    _submit(run, key, version, prepare(run_call(context, app, version, run.pk, contents.inputs)))
    return None


def _start_there(
    run: TriggerRun, app: App, deployment: AppDeployment, asked: AppCall
) -> Callable[[], None] | None:
    """Writes down that Dify is about to be called; or that the run waits for it."""
    target = target_of(app, deployment)
    standing = standing_of(app)
    if target is None or standing is None:
        _wait(run, AppNotReady())
        return None
    if not remote.reserve():
        run.wake_at = timezone.now() + _LOOK_AGAIN
        return None
    run.state, run.waiting_for = TriggerRunState.RUNNING, ""
    run.app_version, run.wake_at = standing.live, timezone.now() + remote.LEASE
    then = partial(_take_answer, run.tenant_id, run.pk)
    return partial(remote.call, asked, target, then)


def _take_answer(tenant_id: UUID, run_id: UUID, answered: Answered) -> None:
    """Writes down what came of a call of Dify, unless the run has been given up."""
    with tenant_scope(Context.system("triggers", tenant_id=tenant_id)):
        running = TriggerRun.objects.filter(
            pk=run_id, state=TriggerRunState.RUNNING, job_id=None
        ).select_related("trigger__app")
        run = running.select_for_update(no_key=True, of=("self",)).first()
        if run is None:
            return
        if isinstance(answered.refusal, AppBusy | AppNotReady):
            # Refused is not begun: it is asked again.
            run.state = TriggerRunState.WAITING
            _wait(run, answered.refusal)
        elif answered.refusal is not None:
            _end(run, TriggerRunState.FAILED, answered.refusal.message)
        else:
            _succeed(run, answered.text)
        run.save()


def _wait(run: TriggerRun, refusal: PortalError) -> None:
    rest = min(max(1.0, refusal.retry_after or 1.0), _MOST_REST_SECONDS)
    run.waiting_for = refusal.message[:500]
    run.wake_at = timezone.now() + timedelta(seconds=rest)


def _submit(run: TriggerRun, key: ApiKey, version: AppVersion, fitted: Fitted) -> None:
    """Has the portal itself generate, as a job of its own key."""
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
        _wait(run, outcome.error)
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
    _succeed(run, _answer(run.trigger.api_key_id, job))


def _succeed(run: TriggerRun, answer: str) -> None:
    contents = contents_of(run)
    if contents is not None:
        seal_contents(run, msgspec.structs.replace(contents, answer=answer))
    run.alert = _is_alert(run.trigger, answer)
    _end(run, TriggerRunState.SUCCEEDED)
    if run.alert:
        _tell(run)


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


def _tell(run: TriggerRun) -> None:
    """Tells the trail, and the receiver if there is one: of the job that found it, if one did."""
    trigger = run.trigger
    job = {"job": str(run.job_id)} if run.job_id else {}
    record_about(TriggerEvent.ALERT, trigger, detail={"run": str(run.pk), **job})
    if trigger.sealed_url is None:
        return
    tenant_id = trigger.tenant_id
    kept = url_of(tenant_id, trigger.data_key_version, trigger.pk, bytes(trigger.sealed_url))
    url = clean_url(kept, targets())
    if run.job_id is not None:
        register_callbacks(tenant_id=tenant_id, urls={run.job_id: url}, ended=True)
    else:
        data = {"trigger": trigger.name, "run": str(run.pk)}
        tell(tenant_id=tenant_id, url=url, event=ALERT, data=data)
