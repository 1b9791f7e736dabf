"""Asks an installed app the cases of a labelled set, where it runs."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

import msgspec

from inference.batches.refusals import passes
from inference.jobs.results import read_result
from inference.jobs.submission import JobRequest, submit
from inference.models import Job, JobState
from inference.models.jobs import ENDED
from knowledge.accounts import TRIGGERS, own_key, spending_context
from knowledge.applications.backends import AppCall, Source
from knowledge.applications.dify.backend import Target
from knowledge.applications.dify.deployed import deployment_of, standing_of
from knowledge.applications.dify.faults import AppFailed, AppNotReady
from knowledge.applications.dify.targets import target_of
from knowledge.applications.dify.waiting import whole_answer
from knowledge.applications.selectors import get_version
from knowledge.models import App, AppVersion
from knowledge.runner.runner import prepare
from knowledge.triggers.inputs import Inputs
from knowledge.triggers.running import run_call
from portal.core.actors import Context
from portal.core.errors import Conflict
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey

AT_ONCE: Final = 8
_LOOK_SECONDS: Final = 0.2
_KEPT_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Said:
    """An answer.

    Attributes:
        text: empty where there was none.
        sku: what answered; empty where that is not known.
        sources: what the model was shown.
    """

    text: str
    sku: str
    sources: Sequence[Source]


@dataclass(frozen=True, slots=True)
class Asking:
    """A version of an app, and how it is asked.

    Attributes:
        ask: inputs of up to ``AT_ONCE`` cases; what is said to each, in their order.
    """

    version: AppVersion
    ask: Callable[[Sequence[Inputs]], list[Said]]


def asking_of(context: Context, app: App, number: int | None) -> Asking:
    """How a version of an app is asked: by jobs of the portal's, or in Dify if it runs there.

    Inside the tenant's scope; what it gives is called outside any.

    Args:
        number: of the version; the newest if it is left out, and what Dify has where that runs it.

    Raises:
        NotFound: no such version.
        Conflict: Dify has another version.
        AppNotReady: Dify has none yet.
    """
    key = own_key(context, None, TRIGGERS)
    deployment = deployment_of(app)
    if deployment is None:
        version = get_version(app, number or app.latest)
        return Asking(version, partial(_ask_here, context, key, app, version))
    standing, target = standing_of(app), target_of(app, deployment)
    if standing is None or target is None:
        raise AppNotReady
    if number not in (None, standing.live):
        raise Conflict(
            f"Dify has version {standing.live} of the app: publish the other one first, or leave "
            "the version out.",
            code="version_not_live",
        )
    version = get_version(app, standing.live)
    call = partial(run_call, spending_context(key, ""), app, version)
    return Asking(version, partial(_ask_there, target, call))


# -- in Dify -----------------------------------------------------------------------------------


def _ask_there(
    target: Target, call: Callable[[UUID, Inputs], AppCall], inputs: Sequence[Inputs]
) -> list[Said]:
    calls = [call(uuid7(), one) for one in inputs]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_said_there, target), calls))


def _said_there(target: Target, asked: AppCall) -> Said:
    answered = whole_answer(asked, target)
    # Whoever can't be reached says nothing of the model.
    if answered.refusal is not None and not isinstance(answered.refusal, AppFailed):
        raise answered.refusal
    return Said(answered.text, f"{asked.spec.model} in Dify", answered.sources)


# -- in the portal -----------------------------------------------------------------------------


def _ask_here(
    context: Context, key: ApiKey, app: App, version: AppVersion, inputs: Sequence[Inputs]
) -> list[Said]:
    begun = [_begun_here(context, key, app, version, one) for one in inputs]
    return [Said(*_answer(context, key, job_id), sources) for job_id, sources in begun]


def _begun_here(
    context: Context, key: ApiKey, app: App, version: AppVersion, inputs: Inputs
) -> tuple[UUID | None, Sequence[Source]]:
    """The job of a case, None where it was refused for good, and what the model is shown."""
    with tenant_scope(context):
        fitted = prepare(run_call(context, app, version, uuid7(), inputs))
    request = JobRequest(fitted.body, result_seconds=_KEPT_SECONDS)
    while True:
        spending = spending_context(key, f"case_{uuid7().hex}")
        (outcome,) = submit(context=spending, requests=[request], passes=passes)
        if not outcome.passes:
            return outcome.job_id, fitted.shown
        time.sleep(1.0)


def _answer(context: Context, key: ApiKey, job_id: UUID | None) -> tuple[str, str]:
    """The text of a job's answer, empty where it failed, and what served it."""
    while job_id is not None:
        with tenant_scope(context):
            job = Job.objects.get(pk=job_id)
            if job.state == JobState.SUCCEEDED:
                result = read_result(context=spending_context(key, job.request_id), job_id=job.pk)
                told = msgspec.json.decode(result)
                return told["choices"][0]["message"]["content"] or "", job.sku
        if job.state in ENDED:
            return "", job.sku
        time.sleep(_LOOK_SECONDS)
    return "", ""
