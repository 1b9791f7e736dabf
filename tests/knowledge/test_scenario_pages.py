"""The page of scenarios: installed from it, measured over time, and what went wrong shown."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import translation

from inference.models import Deployment
from inference.services import set_deployment_enabled
from knowledge.models import App, Evaluation, KnowledgeBase
from knowledge.scenarios.services import install_scenario
from portal.core.tenancy import tenant_scope
from tests.factories import TESTS, Member, Organisation
from tests.knowledge.triggers.support import Writer
from tests.servers import SessionServers

LIST = "/admin/knowledge/evaluation/"
RIGHT = {"accuracy": 0.75, "classes": {"high": {"precision": None, "recall": 0.5}}}
SCORES = {
    "valid": 1.0,
    "exact": 0.25,
    "fields": {"risk": 0.75, "pattern": 0.25},
    "rules_and_model": RIGHT,
    "rules_alone": {**RIGHT, "accuracy": 0.5},
}
FAILURE = {
    "case": "case-7",
    "kind": "structuring",
    "wrong": ["risk"],
    "expected": {"risk": "high", "pattern": "structuring"},
    "answer": {"risk": "low<b>", "pattern": "structuring"},
    "valid": True,
    "rules": "high",
}


@pytest.fixture(scope="module")
def writer(servers: SessionServers, database: None) -> Iterator[Writer]:
    made = Writer(servers)
    yield made
    made.close()
    deployment = Deployment.objects.get(name=made.model)
    set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)


@pytest.fixture(autouse=True)
def _english(database: None) -> Iterator[None]:
    with translation.override("en"):
        yield


def client_of(member: Member) -> Client:
    client = Client()
    client.force_login(member.user)
    return client


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return re.sub(r"\s+", " ", answer.content.decode())


def evaluated(tenant: Organisation, app: App, **given: Any) -> Evaluation:
    fields = {
        "app_version": 1,
        "scenario": app.slug,
        "model": "writer@1",
        "cases": 4,
        "scores": SCORES,
        "failures": [FAILURE],
        "seconds": 12.0,
        "created_at": datetime.now(UTC),
    }
    made = Evaluation(tenant_id=tenant.id, app=app, **fields | given)
    with tenant_scope(tenant.owner.context):
        made.save(force_insert=True)
    return made


def test_scenario_is_installed_from_the_page_once(tenant_a: Organisation, writer: Writer) -> None:
    client = client_of(tenant_a.developer)
    assert f"{LIST}add/?slug=manufacturing" in text_of(client, LIST)
    given = {"slug": "manufacturing", "model": writer.model}
    made = client.post(f"{LIST}add/", given)
    assert made.status_code == 302
    assert made["Location"].startswith("/admin/knowledge/app/")
    shown = text_of(client, LIST)
    assert made["Location"] in shown
    with tenant_scope(tenant_a.owner.context):
        base = KnowledgeBase.objects.get()
    assert f'href="/admin/knowledge/knowledgebase/{base.pk}/"' in shown
    assert f"manage.py scenario evaluate manufacturing --tenant {tenant_a.tenant.slug}" in shown
    assert f"{LIST}add/?slug=manufacturing" not in shown
    again = client.post(f"{LIST}add/", given)
    assert (again.status_code, b"the scenario is installed" in again.content) == (409, True)


def test_evaluations_are_shown_over_time_and_each_with_what_went_wrong(
    tenant_a: Organisation, tenant_b: Organisation, writer: Writer
) -> None:
    app = install_scenario(
        context=tenant_a.owner.context, slug="financial-risk", model=writer.model
    ).app
    worse = {**SCORES, "rules_and_model": {**RIGHT, "accuracy": 0.0}}
    evaluated(tenant_a, app, scores=worse)
    newest = evaluated(tenant_a, app)
    viewer = client_of(tenant_a.viewer)
    shown = text_of(viewer, LIST)
    assert '<polyline points="0.0,120.0 600.0,30.0">' in shown
    assert '<polyline class="fh-chart-rules" points="0.0,60.0 600.0,60.0">' in shown
    assert f"{LIST}add/" not in shown
    page = f"{LIST}{newest.pk}/"
    detail = text_of(viewer, page)
    for said in ("75 %", "50 %", "case-7", "risk: high", "risk: low&lt;b&gt;", "Right: pattern"):
        assert said in detail
    assert client_of(tenant_b.viewer).get(page).status_code == 404
    assert client_of(tenant_a.viewer).post(f"{LIST}add/").status_code == 403


def test_pages_speak_chinese(tenant_a: Organisation, writer: Writer) -> None:
    app = install_scenario(
        context=tenant_a.owner.context, slug="medical-records", model=writer.model
    ).app
    made = evaluated(tenant_a, app, scores={"valid": 0.5, "fields": {"age": 1.0}}, failures=[])
    client = client_of(tenant_a.developer)
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "zh-hans"
    shown = text_of(client, LIST)
    for said in ("病历", "金融风险", "安装"):
        assert said in shown
    assert "每个案例的回答都与标注一致" in text_of(client, f"{LIST}{made.pk}/")
    refused = client.post(f"{LIST}add/", {"slug": "medical-records", "model": writer.model})
    assert "该场景已安装" in refused.content.decode()
