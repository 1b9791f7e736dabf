"""Scenarios: what is shipped is whole, is installed, runs, and is measured as it is labelled."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import jsonschema  # type: ignore[import-untyped]
import pytest

from inference.engines.base import Message
from inference.models import Deployment, Job
from inference.payloads import Prompt
from inference.services import set_deployment_enabled
from knowledge.models import Evaluation, KnowledgeBase, Method
from knowledge.scenarios.catalogue import findings_of, get_scenario, happenings, scenarios
from knowledge.scenarios.evaluating import evaluate
from knowledge.scenarios.scoring import classes
from knowledge.scenarios.services import install_scenario
from knowledge.services import edit_knowledge_base
from knowledge.triggers.intake import Incoming, accept_events
from portal.core.errors import Conflict, Forbidden, NotFound
from portal.core.tenancy import tenant_scope
from tests.factories import TESTS, Organisation
from tests.knowledge.support import index
from tests.knowledge.triggers.support import Writer, look, runs_of, step_runs
from tests.servers import SessionServers

SLUGS = ("financial-risk", "manufacturing", "medical-records")
LOW = {"risk": "low", "pattern": "none", "reasons": "-", "action": "release"}


@pytest.fixture(scope="module")
def writer(servers: SessionServers, database: None) -> Iterator[Writer]:
    made = Writer(servers)
    yield made
    made.close()
    deployment = Deployment.objects.get(name=made.model)
    set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)


@contextmanager
def answering(writer: Writer, answer: str) -> Iterator[list[Message]]:
    """Answers every job while this is open; what was asked."""
    ended, asked = threading.Event(), []

    def write(prompt: Prompt) -> str:
        asked.append(prompt.messages[-1])
        return answer

    def serve() -> None:
        while not ended.wait(0.01):
            writer.answer(write)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        ended.set()
        thread.join()


def by_words(organisation: Organisation, base_id: UUID) -> None:
    """Has a knowledge base searched by words alone, whatever embeds here, and indexes it."""
    edit_knowledge_base(
        context=organisation.owner.context,
        knowledge_base_id=base_id,
        method=Method.FULL_TEXT,
        embedding_model="",
    )
    index(organisation)


def test_shipped_scenarios_are_these() -> None:
    assert tuple(scenarios()) == SLUGS
    with pytest.raises(NotFound, match="there are financial-risk"):
        get_scenario("horoscope")


@pytest.mark.parametrize("slug", SLUGS)
def test_labels_fit_the_schema_and_name_documents_that_there_are(slug: str) -> None:
    scenario = get_scenario(slug)
    schema = scenario.app["schema"]["properties"]
    assert len(scenario.cases) >= 30
    assert len({case.id for case in scenario.cases}) == len(scenario.cases)
    for case in scenario.cases:
        assert set(case.expected) == set(scenario.fields)
        for field, value in case.expected.items():
            jsonschema.validate(value, schema[field])
        assert not case.document or case.document in scenario.documents
    assert scenario.samples


@pytest.mark.parametrize(("slug", "least"), [("financial-risk", 0.75), ("manufacturing", 0.85)])
def test_rules_alone_tell_most_cases_and_not_all(slug: str, least: float) -> None:
    scenario, now = get_scenario(slug), datetime.now(UTC)
    wanted = [case.expected[scenario.verdict] for case in scenario.cases]
    said = [
        scenario.by_rules(findings_of(scenario, happenings(case, now))) for case in scenario.cases
    ]
    assert least <= classes(wanted, said)["accuracy"] < 1, "else there is nothing left to a model"


def test_install_makes_what_runs_for_the_sample(tenant_a: Organisation, writer: Writer) -> None:
    context = tenant_a.developer.context
    scenario = get_scenario("financial-risk")
    installed = install_scenario(context=context, slug=scenario.slug, model=writer.model)
    by_words(tenant_a, installed.knowledge_base_id)
    now = datetime.now(UTC)
    last = scenario.samples[-1].minute
    for one in scenario.samples[:4]:
        accept_events(
            context=context,
            stream=installed.trigger.stream,
            events=[Incoming(one.data, subject=one.subject, at=now)],
        )
    assert last == 0
    look(tenant_a)
    step_runs(tenant_a)
    (prompt, *_) = writer.answer(json.dumps({**LOW, "risk": "high"}))
    assert "structuring: count in 60 minutes is" in prompt.messages[-1].content
    assert "just under a reporting limit" in prompt.messages[-1].content
    step_runs(tenant_a)
    assert [run.alert for run in runs_of(tenant_a, installed.trigger)][:1] == [True]
    with pytest.raises(Conflict, match="installed"):
        install_scenario(context=context, slug=scenario.slug, model=writer.model)


def test_install_that_fails_leaves_nothing(tenant_a: Organisation, writer: Writer) -> None:
    with pytest.raises(Forbidden):
        install_scenario(context=tenant_a.viewer.context, slug=SLUGS[0], model=writer.model)
    with pytest.raises(Exception, match="served here"):
        install_scenario(context=tenant_a.owner.context, slug=SLUGS[0], model="nobody")
    with tenant_scope(tenant_a.context):
        assert not KnowledgeBase.objects.exists()


def test_evaluate_scores_what_was_said_against_the_labels(
    tenant_a: Organisation, writer: Writer
) -> None:
    context = tenant_a.owner.context
    install_scenario(context=context, slug="financial-risk", model=writer.model)
    told = []
    with answering(writer, json.dumps(LOW)):
        made = evaluate(
            context=context,
            slug="financial-risk",
            most=14,
            progress=lambda done, of: told.append((done, of)),
        )
    with tenant_scope(context):
        assert Job.objects.filter(sku__startswith=writer.model).count() == made.cases == 14
    assert told == [(8, 14), (14, 14)]
    found = made.scores["rules_and_model"]["classes"]
    assert made.scores["valid"] == 1
    assert found["low"]["recall"] == 1
    assert (found["high"]["recall"], found["high"]["precision"]) == (0, None)
    assert made.scores["rules_alone"]["accuracy"] > found["low"]["precision"]
    assert {one["expected"]["risk"] for one in made.failures} == {"medium", "high"}
    assert made.model.startswith(writer.model)
    with answering(writer, "I can't say."):
        again = evaluate(context=context, slug="financial-risk", most=3)
    assert again.scores["valid"] == again.scores["exact"] == 0
    with tenant_scope(tenant_a.context):
        assert list(Evaluation.objects.values_list("cases", flat=True)) == [3, 14]


def test_evaluate_medical_records_measures_what_was_retrieved(
    tenant_a: Organisation, tenant_b: Organisation, writer: Writer
) -> None:
    context = tenant_a.owner.context
    installed = install_scenario(context=context, slug="medical-records", model=writer.model)
    assert (installed.trigger.keep_days, installed.app.keep_days) == (0, 1)
    by_words(tenant_a, installed.knowledge_base_id)
    with answering(writer, "{}"):
        made = evaluate(context=context, slug="medical-records", most=8)
    assert made.scores["retrieval_recall"] >= 0.75
    assert "rules_alone" not in made.scores
    with pytest.raises(NotFound):
        evaluate(context=tenant_b.owner.context, slug="medical-records")
