"""Evaluations: a labelled set through an app, as real calls, and what came of it written down."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]
from django.utils import timezone

from audit.services import intent
from knowledge.applications.selectors import get_app
from knowledge.models import AppVersion, Evaluation
from knowledge.scenarios.asking import AT_ONCE, Said, asking_of
from knowledge.scenarios.catalogue import Case, Scenario, findings_of, get_scenario, happenings
from knowledge.scenarios.scoring import Judged, failed, score
from knowledge.triggers.inputs import Inputs, inputs_of_event
from knowledge.triggers.vault import json_object
from portal.core.actors import Context
from portal.core.errors import Invalid
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant

EVALUATE: Final = "scenario.evaluate"


def evaluate(
    *,
    context: Context,
    slug: str,
    number: int | None = None,
    most: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Runs a scenario's labelled set through its app in the context's tenant, and keeps the scores.

    It lasts as long as the model takes. The app is asked where it runs, in Dify too. Not inside a
    scope: workers run what is committed.

    Args:
        number: of the app's version; the newest if it is left out, what Dify has if that runs it.
        most: so many cases, spread over the set; all if it is left out.
        progress: told, a few cases at a time, how many are answered of how many.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such scenario, or it is not installed here.
        Invalid: ``most`` is below 1.
        Conflict: Dify has another version.
        AppNotReady: Dify has no version yet.
        AppAway: Dify does not answer; nothing is kept then.
    """
    require(context, Action.APP_EDIT)
    tenant_id = require_tenant(context)
    scenario = get_scenario(slug)
    cases = _spread(scenario.cases, most)
    begun = time.monotonic()
    with tenant_scope(context):
        app = get_app(slug)
        asking = asking_of(context, app, number)
    judged: list[Judged] = []
    skus: set[str] = set()
    for first in range(0, len(cases), AT_ONCE):
        posed = [_posed(scenario, case) for case in cases[first : first + AT_ONCE]]
        for one, said in zip(posed, asking.ask([one.inputs for one in posed]), strict=True):
            skus.add(said.sku)
            judged.append(_judged(one, said, asking.version))
        if progress is not None:
            progress(len(judged), len(cases))
    made = Evaluation(
        tenant_id=tenant_id,
        app=app,
        app_version=asking.version.number,
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


@dataclass(frozen=True, slots=True)
class _Posed:
    """A case as the app is asked it, and the verdict of the rules alone."""

    case: Case
    inputs: Inputs
    rules: str


def _posed(scenario: Scenario, case: Case) -> _Posed:
    events = happenings(case, timezone.now())
    found = findings_of(scenario, events)
    inputs = inputs_of_event(scenario.trigger["inputs"], events[-1], "", found, events[:-1])
    return _Posed(case, inputs, scenario.by_rules(found) if scenario.rules else "")


def _judged(one: _Posed, said: Said, version: AppVersion) -> Judged:
    answer = json_object(said.text)
    schema: Any = version.spec.get("schema")
    valid = answer is not None and (
        schema is None or jsonschema.Draft202012Validator(schema).is_valid(answer)
    )
    shown = any(source.document == one.case.document for source in said.sources)
    return Judged(one.case, answer, valid, one.rules, shown if one.case.document else None)
