"""Pages of triggers: read, paused, started by hand and deleted, in both languages."""

import re
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import Client
from django.utils import translation

from tests.factories import Member, Organisation
from tests.knowledge.triggers.support import (
    BIG,
    Writer,
    look,
    make_trigger,
    runs_of,
    send,
    step_runs,
)

LIST = "/admin/knowledge/trigger/"


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


def test_trigger_is_paused_resumed_started_and_deleted(
    tenant_a: Organisation, writer: Writer
) -> None:
    client = client_of(tenant_a.developer)
    assert "No trigger yet" in text_of(client, LIST)
    trigger = make_trigger(tenant_a, writer, rules=[BIG])
    page = f"{LIST}{trigger.pk}/"
    assert client.post(f"{page}pause/").status_code == 302
    assert "Paused" in text_of(client, LIST)
    send(tenant_a, {"amount": 5000})
    look(tenant_a)
    assert runs_of(tenant_a, trigger) == []
    assert client.post(f"{page}resume/").status_code == 302
    wrong = client.post(f"{page}start/", {"inputs": "[1]"})
    assert (wrong.status_code, b"It must be a JSON object." in wrong.content) == (400, True)
    started = client.post(f"{page}start/", {"inputs": '{"report": "by hand"}'})
    assert started.status_code == 302
    step_runs(tenant_a)
    (prompt,) = writer.answer("fine")
    assert "by hand" in prompt.messages[-1].content
    step_runs(tenant_a)
    shown = text_of(client, page)
    assert "Succeeded" in shown
    (run,) = runs_of(tenant_a, trigger)
    assert f"/admin/inference/job/{run.job_id}/" in shown
    assert "&quot;amount&quot;" in shown, "the rule's condition"
    assert client.post(f"{page}delete/").status_code == 302
    assert client.get(page).status_code == 404


def test_viewer_reads_and_changes_nothing(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer, kind="schedule", schedule="15", inputs={})
    page = f"{LIST}{trigger.pk}/"
    viewer = client_of(tenant_a.viewer)
    shown = text_of(viewer, page)
    assert "Next run" in shown
    assert f"{page}pause/" not in shown
    assert viewer.post(f"{page}pause/").status_code == 403


def test_another_tenants_trigger_is_not_found(
    tenant_a: Organisation, tenant_b: Organisation, writer: Writer
) -> None:
    trigger = make_trigger(tenant_a, writer)
    other = client_of(tenant_b.developer)
    assert other.get(f"{LIST}{trigger.pk}/").status_code == 404
    assert trigger.name not in text_of(other, LIST)


def test_refusal_and_pages_speak_chinese(tenant_a: Organisation, writer: Writer) -> None:
    trigger = make_trigger(tenant_a, writer)
    client = client_of(tenant_a.developer)
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "zh-hans"
    shown = text_of(client, f"{LIST}{trigger.pk}/")
    assert "事件流中的每个事件都会启动应用" in shown
