"""Evaluations: a labelled set through an app, as real jobs, and what came of it written down."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import jsonschema  # type: ignore[import-untyped]
import msgspec
from django.utils import timezone

from audit.services import intent
from inference.batches.refusals import passes
from inference.jobs.results import read_result
from inference.jobs.submission import JobRequest, submit
from inference.models import Job, JobState
from inference.models.jobs import ENDED
from knowledge.accounts import TRIGGERS, own_key, spending_context
from knowledge.applications.selectors import get_app, get_version
from knowledge.models import App, AppVersion, Evaluation
from knowledge.runner.prompting import Fitted
from knowledge.runner.runner import prepare
from knowledge.scenarios.catalogue import Case, Scenario, findings_of, get_scenario, happenings
from knowledge.scenarios.scoring import Judged, failed, score
from knowledge.triggers.inputs import inputs_of_event
from knowledge.triggers.running import run_call
from knowledge.triggers.vault import json_object
from portal.core.actors import Context
from portal.core.errors import Invalid
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant

EVALUATE: Final = "scenario.evaluate"
_AT_ONCE: Final = 8
_LOOK_SECONDS: Final = 0.2
_KEPT_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class _Asked:
    """A case whose job is under way."""

    case: Case
    job_id: UUID | None
    rules: str
    found: bool | None


def evaluate(
    *,
    context: Context,
    slug: str,
    number: int | None = None,
    most: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Runs a scenario's labelled set through its app in the context's tenant, and keeps the scores.

    It lasts as long as the model takes. Not inside a scope: workers run what is committed.

    Args:
        number: of the app's version; the newest if it is left out.
        most: so many cases, spread over the set; all if it is left out.
        progress: told, a few cases at a time, how many are answered of how many.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such scenario, or it is not installed here.
        Invalid: ``most`` is below 1.
    """
    require(context, Action.APP_EDIT)
    tenant_id = require_tenant(context)
    scenario = get_scenario(slug)
    cases = _spread(scenario.cases, most)
    begun = time.monotonic()
    with tenant_scope(context):
        app = get_app(slug)
        version = get_version(app, number or app.latest)
        key = own_key(context, None, TRIGGERS)
    judged: list[Judged] = []
    skus: set[str] = set()
    for first in range(0, len(cases), _AT_ONCE):
        asked = [
            _ask(context, key, scenario, app, version, c) for c in cases[first : first + _AT_ONCE]
        ]
        for one in asked:
            text, sku = _answer(context, key, one.job_id)
            skus.add(sku)
            judged.append(_judged(one, text, version))
        if progress is not None:
            progress(len(judged), len(cases))
    made = Evaluation(
        tenant_id=tenant_id,
        app=app,
        app_version=version.number,
        scenario=slug,
        model=", ".join(sorted(skus - {""}))[:120],
        cases=len(cases),
        scores=score(scenario, judged),
        failures=[found for one in judged if (found := failed(scenario, one)) is not None],
        seconds=time.monotonic() - begun,
        created_by_id=context.user_id,
        created_at=timezone.now(),
    )
    with (
        tenant_scope(context),
        intent(EVALUATE, object_type="knowledge.scenario", object_label=slug),
    ):
        made.save(force_insert=True)
    return made


def _spread(cases: Sequence[Case], most: int | None) -> list[Case]:
    if most is None or most >= len(cases):
        return list(cases)
    if most < 1:
        raise Invalid("'cases' must be 1 or more.", param="cases")
    return [cases[n * len(cases) // most] for n in range(most)]


def _ask(
    context: Context, key: ApiKey, scenario: Scenario, app: App, version: AppVersion, case: Case
) -> _Asked:
    events = happenings(case, timezone.now())
    found = findings_of(scenario, events)
    inputs = inputs_of_event(scenario.trigger["inputs"], events[-1], "", found, events[:-1])
    with tenant_scope(context):
        fitted = prepare(run_call(context, app, version, uuid7(), inputs))
    shown = any(source.document == case.document for source in fitted.shown)
    return _Asked(
        case,
        _submitted(key, fitted, case),
        scenario.by_rules(found) if scenario.rules else "",
        shown if case.document else None,
    )


def _submitted(key: ApiKey, fitted: Fitted, case: Case) -> UUID | None:
    """The case's job; None where it was refused for good."""
    request = JobRequest(fitted.body, result_seconds=_KEPT_SECONDS, metadata={"case": case.id})
    spending = spending_context(key, f"case_{case.id}")
    while True:
        (outcome,) = submit(context=spending, requests=[request], passes=passes)
        if not outcome.passes:
            return outcome.job_id
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


def _judged(one: _Asked, text: str, version: AppVersion) -> Judged:
    answer = json_object(text)
    schema: Any = version.spec.get("schema")
    valid = answer is not None and (
        schema is None or jsonschema.Draft202012Validator(schema).is_valid(answer)
    )
    return Judged(one.case, answer, valid, one.rules, one.found)
