"""Pages of triggers: read, paused, started by hand and deleted, in both languages."""

import html
import json
import re
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import Client
from django.utils import translation

from inference.webhooks.services import make_webhook_secret
from knowledge.models import Trigger
from portal.core.tenancy import tenant_scope
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
    assert "amount ≥ 1000" in shown
    assert client.post(f"{page}delete/").status_code == 302
    assert client.get(page).status_code == 404


def test_trigger_is_made_and_changed_by_forms(tenant_a: Organisation, writer: Writer) -> None:
    client = client_of(tenant_a.developer)
    app = make_trigger(tenant_a, writer).app
    rules = [
        BIG,
        {
            "name": "many",
            "weight": 0.5,
            "when": {
                "type": "any",
                "of": [
                    {"type": "window", "measure": "count", "minutes": 10, "op": ">", "value": 5},
                    {"type": "compare", "field": "country", "op": "in", "value": ["XX", "YY"]},
                ],
            },
        },
    ]
    given = {
        "name": "Payments",
        "app_id": str(app.pk),
        "kind": "event",
        "stream": "payments",
        "rules": json.dumps(rules),
        "threshold": "1.5",
        "cooldown_minutes": "60",
        "schedule": "is of the other kind, and out of sight",
        "inputs": '{"report": "$findings"}',
        "alert_when": '{"type": "compare", "field": "risk", "op": "==", "value": "high"}',
        "notify_url": "",
        "keep_days": "7",
    }
    made = client.post(f"{LIST}add/", given)
    assert made.status_code == 302, made.content.decode()
    shown = text_of(client, made["Location"])
    assert "number of events of the subject in 10 minutes &gt; 5 or country is one of" in shown
    assert "risk = &quot;high&quot;" in shown
    assert "1.5" in shown
    (trigger,) = [t for t in triggers_of(tenant_a) if t.name == "Payments"]
    assert (trigger.rules[1]["weight"], trigger.cooldown_minutes, trigger.schedule) == (0.5, 60, "")
    page = f"{made['Location']}edit/"
    form = text_of(client, page)
    typed = re.search(r'<textarea name="rules"[^>]*>(.*?)</textarea>', form)
    assert typed is not None
    assert json.loads(html.unescape(typed[1])) == trigger.rules
    for name, value in (("name", "Payments"), ("stream", trigger.stream), ("keep_days", "7")):
        assert re.search(f'<input[^>]* name="{name}" value="{value}"', form)
    kept = {name: given[name] for name in given.keys() - {"app_id", "kind", "schedule"}}
    saved = client.post(page, {**kept, "rules": "", "threshold": "1"})
    assert saved.status_code == 302, saved.content.decode()
    (trigger,) = [t for t in triggers_of(tenant_a) if t.name == "Payments"]
    assert (trigger.rules, trigger.threshold) == ([], 1)
    assert trigger.alert_when == json.loads(given["alert_when"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stream": ""}, "'stream' is needed"),
        ({"rules": "{}"}, "It must be a JSON list."),
        ({"rules": '[{"name": "x", "when": {"type": "compare"}}]'}, "$[0].when"),
        ({"inputs": '{"nothing": "x"}'}, "'nothing' is no input of this app."),
        ({"inputs": '{"report": "$nothing"}'}, "names what there is not: $nothing"),
        ({"kind": "schedule", "rules": "[", "schedule": "at noon"}, "five fields of cron"),
        ({"notify_url": "http://127.0.0.1:9999/hook"}, "signing secret"),
        ({"notify_url": "ftp://example.test/hook"}, "must begin with"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_made(
    tenant_a: Organisation, writer: Writer, wrong: dict[str, str], said: str
) -> None:
    client = client_of(tenant_a.developer)
    app = make_trigger(tenant_a, writer).app
    given = {
        "name": "Payments",
        "app_id": str(app.pk),
        "kind": "event",
        "stream": "payments",
        "threshold": "1",
        "cooldown_minutes": "0",
        "keep_days": "30",
    }
    refused = client.post(f"{LIST}add/", given | wrong)
    assert refused.status_code in (400, 409)
    described = re.findall(r'aria-describedby="([^"]+)"', refused.content.decode())
    ids = set(re.findall(r'id="([^"]+)"', refused.content.decode()))
    assert {one for several in described for one in several.split()} <= ids
    assert said in html.unescape(refused.content.decode())
    assert len(triggers_of(tenant_a)) == 1


def test_address_of_alerts_is_kept_and_forgotten(tenant_a: Organisation, writer: Writer) -> None:
    make_webhook_secret(context=tenant_a.owner.context)
    trigger = make_trigger(tenant_a, writer, notify_url="http://127.0.0.1:9999/hook")
    page = f"{LIST}{trigger.pk}/edit/"
    client = client_of(tenant_a.developer)
    given = {
        "name": trigger.name,
        "stream": trigger.stream,
        "threshold": "1",
        "cooldown_minutes": "0",
        "inputs": "{}",
        "keep_days": "30",
    }
    assert "9999" not in text_of(client, page)
    assert client.post(page, given).status_code == 302
    assert triggers_of(tenant_a)[0].receiver == trigger.receiver == "http://127.0.0.1:9999"
    assert client.post(page, given | {"forget_url": "on"}).status_code == 302
    assert triggers_of(tenant_a)[0].receiver == ""


def triggers_of(tenant: Organisation) -> list[Trigger]:
    with tenant_scope(tenant.context):
        return list(Trigger.objects.select_related("app"))


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
