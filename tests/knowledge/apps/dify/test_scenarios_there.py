"""The shipped scenarios in Dify: made of the same templates, and measured by the same command."""

import json
from typing import Any

import pytest

from knowledge.applications.dify.dsl import SEARCH
from knowledge.applications.dify.faults import AppAway, AppNotReady
from knowledge.applications.dify.services import deploy_app
from knowledge.models import App, Evaluation, Method
from knowledge.scenarios.catalogue import get_scenario
from knowledge.scenarios.evaluating import evaluate
from knowledge.scenarios.services import install_scenario
from knowledge.services import edit_knowledge_base
from portal.core.errors import Conflict
from portal.core.tenancy import tenant_scope
from tests.knowledge.apps.dify.bench import AppBench
from tests.knowledge.support import index
from tests.knowledge.test_scenarios import SLUGS

WORST = {
    "financial-risk": {"risk": "high", "pattern": "none", "reasons": "-", "action": "hold"},
    "manufacturing": {"fault": "sensor", "urgency": "now", "advice": "-"},
}


def installed(bench: AppBench, slug: str, *, settled: bool = True) -> App:
    """A scenario that runs in Dify, with its knowledge there too."""
    made = install_scenario(context=bench.context, slug=slug, model=bench.model)
    edit_knowledge_base(
        context=bench.context,
        knowledge_base_id=made.knowledge_base_id,
        connection_id=bench.connection.pk,
        method=Method.FULL_TEXT,
        embedding_model="",
    )
    index(bench.tenant)
    deploy_app(context=bench.context, app_id=made.app.pk, connection_id=bench.connection.pk)
    if settled:
        bench.settle()
    return made.app


@pytest.mark.parametrize("slug", SLUGS)
def test_scenario_runs_in_dify_by_its_own_templates(bench: AppBench, slug: str) -> None:
    app = installed(bench, slug)
    assert bench.apps_in_step()
    evaluate(context=bench.context, slug=slug, most=3)
    spec = get_scenario(slug).app
    asked, params = bench.double.apps.model.asked, bench.double.apps.model.params
    assert len(asked) == len(params) == 3
    for messages in asked:
        system, user = [message["content"] for message in messages]
        assert system == spec["instructions"]
        assert user.startswith("Guidance:\n")
        assert "{{" not in user
    form: dict[str, Any] = params[0]["response_format"]["json_schema"]
    assert form == {"name": "answer", "schema": spec["schema"], "strict": True}
    start = bench.there(app).node("start")
    named = [one["variable"] for one in start["variables"]]
    assert (SEARCH in named) == (spec["search"] != "{{record}}")


@pytest.mark.parametrize("slug", list(WORST))
def test_evaluation_of_an_app_in_dify_scores_what_dify_answers(bench: AppBench, slug: str) -> None:
    installed(bench, slug)
    bench.double.apps.model.says = json.dumps(WORST[slug])
    made = evaluate(context=bench.context, slug=slug, most=12)
    scenario = get_scenario(slug)
    verdict = WORST[slug][scenario.verdict]
    labelled = [scenario.cases[n * len(scenario.cases) // 12] for n in range(12)]
    right = sum(case.expected[scenario.verdict] == verdict for case in labelled)
    assert made.scores["rules_and_model"]["accuracy"] == pytest.approx(right / 12, abs=1e-4)
    assert (made.scores["valid"], made.app_version) == (1, 1)
    assert made.model == f"{bench.model} in Dify"


def test_evaluation_in_dify_measures_what_dify_retrieved(bench: AppBench) -> None:
    installed(bench, "medical-records")
    made = evaluate(context=bench.context, slug="medical-records")
    # The double finds the first documents with any word of the record.
    assert 0 < made.scores["retrieval_recall"] < 1
    assert made.scores["valid"] == 0, "the stand-in of a model answers in words"


def test_evaluation_needs_the_version_that_dify_has(bench: AppBench) -> None:
    app = installed(bench, "financial-risk", settled=False)
    with pytest.raises(AppNotReady):
        evaluate(context=bench.context, slug=app.slug, most=1)
    bench.settle()
    with pytest.raises(Conflict, match="Dify has version 1"):
        evaluate(context=bench.context, slug=app.slug, number=2, most=1)


def test_evaluation_keeps_nothing_when_dify_is_away(bench: AppBench) -> None:
    app = installed(bench, "financial-risk")
    bench.double.fail("bad_gateway", path="/v1/", times=-1)
    with pytest.raises(AppAway):
        evaluate(context=bench.context, slug=app.slug, most=1)
    with tenant_scope(bench.context):
        assert not Evaluation.objects.exists()
