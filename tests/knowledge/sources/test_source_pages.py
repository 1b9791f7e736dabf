"""Sources on the management API and on their pages."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client
from django.utils import translation

from knowledge.models import DocumentSource, KnowledgeBase
from portal.core.env import env
from portal.core.tenancy import tenant_scope
from tests.api.callers import session_caller
from tests.factories import Member, Organisation
from tests.knowledge.sources.support import documents, run

LIST = "/admin/knowledge/documentsource/"


@pytest.fixture(autouse=True)
def _english(database: None) -> Iterator[None]:
    with translation.override("en"):
        yield


@pytest.fixture
def root(tmp_path: Path, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch) -> Path:
    allowed = f"{tenant_a.tenant.slug}={tmp_path}"
    known = env().model_copy(update={"source_folders": allowed})
    monkeypatch.setattr("knowledge.sources.settings.env", lambda: known)
    for name, content in (("rules.txt", b"Lunch is at noon."), ("photo.jpg", b"\xff\xd8")):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (1, 1))
    return tmp_path


def client_of(member: Member) -> Client:
    client = Client()
    client.force_login(member.user)
    return client


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


def test_source_is_made_tested_run_paused_and_deleted_by_the_api(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    caller = session_caller(tenant_a.developer.user)
    listing = f"knowledge-bases/{base.pk}/sources"
    body = {"name": "share", "kind": "folder", "settings": {"path": "nowhere"}, "schedule": "15"}
    refused = caller.post(listing, body)
    assert (refused.status_code, refused.json()["code"]) == (502, "source_failed")
    assert caller.get(listing).json()["items"] == []
    wrong = caller.post(listing, {**body, "settings": {"paht": ""}})
    assert (wrong.status_code, "paht" in wrong.json()["detail"]) == (400, True)
    made = caller.post(listing, {**body, "settings": {"path": ""}})
    assert made.status_code == 201
    assert made.json()["settings"] == {"path": "", "include": ""}
    path = f"sources/{made.json()['id']}"
    seen = caller.post(f"{path}/test", None).json()["entries"]
    assert [(e["name"], bool(e["problem"])) for e in seen] == [
        ("photo.jpg", True),
        ("rules.txt", False),
    ]
    run(tenant_a, source_of(tenant_a))
    (ran,) = caller.get(f"{path}/runs").json()["items"]
    assert (ran["state"], ran["added"], ran["refused"]) == ("done", 1, 1)
    (why,) = caller.get(f"{path}/refusals").json()["items"]
    assert why["key"] == "photo.jpg"
    assert caller.post(f"{path}/run", {"full": True}).status_code == 200
    paused = caller.call("PATCH", path, {"paused": True}).json()
    assert (paused["paused"], paused["next_run_at"]) == (True, None)
    assert caller.post(f"{path}/run", {}).status_code == 409
    assert caller.call("DELETE", f"{path}?documents=maybe").status_code == 400
    assert caller.call("DELETE", f"{path}?documents=delete").status_code == 204
    assert caller.get(path).status_code == 404
    assert documents(tenant_a, base) == {}


def source_of(tenant: Organisation) -> DocumentSource:
    with tenant_scope(tenant.context):
        return DocumentSource.objects.get()


def test_pages_add_a_folder_show_what_was_found_and_delete_it(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    client = client_of(tenant_a.developer)
    assert "No source yet" in text_of(client, LIST)
    add = f"/admin/knowledge/knowledgebase/{base.pk}/folder/"
    form = {"name": "Share", "path": "../x", "include": "", "schedule": "15", "on_removed": "keep"}
    refused = client.post(add, form)
    assert (refused.status_code, "downwards" in refused.content.decode()) == (400, True)
    made = client.post(add, {**form, "path": ""})
    page = made.headers["Location"]
    assert "Waits for its first run" in text_of(client, page)
    run(tenant_a, source_of(tenant_a))
    shown = text_of(client, page)
    assert "In step" in shown
    assert "1 added, 1 refused" in shown
    assert "Files of this type can&#x27;t be read" in shown
    assert "Every 15 minutes" in shown
    assert "Share" in text_of(client, f"/admin/knowledge/knowledgebase/{base.pk}/")
    assert "rules.txt" in client.post(f"{page}test/").content.decode()
    assert client.post(f"{page}pause/").status_code == 302
    assert "Paused" in text_of(client, LIST)
    assert client.get(f"{page}run/").status_code == 404
    assert client.post(f"{page}resume/").status_code == 302
    assert client.post(f"{page}run/", {"full": "on"}).status_code == 302
    assert 'value="Share"' in text_of(client, f"{page}edit/")
    assert client.post(f"{page}delete/", {"documents": "keep"}).status_code == 302
    assert list(documents(tenant_a, base)) == ["rules.txt"]


def test_viewer_sees_sources_and_changes_nothing(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    body = {"name": "share", "kind": "folder", "settings": {}}
    session_caller(tenant_a.developer.user).post(f"knowledge-bases/{base.pk}/sources", body)
    client = client_of(tenant_a.viewer)
    page = f"{LIST}{source_of(tenant_a).pk}/"
    assert "Run now" not in text_of(client, page)
    for form in ("run", "test", "pause", "edit", "delete"):
        assert client.post(f"{page}{form}/").status_code == 403


def test_pages_of_sources_speak_chinese(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    client = client_of(tenant_a.developer)
    client.cookies["django_language"] = "zh-hans"
    with translation.override("zh-hans"):
        add = f"/admin/knowledge/knowledgebase/{base.pk}/folder/"
        form = {"name": "共享", "path": "nowhere", "schedule": "", "on_removed": "delete"}
        refused = client.post(add, form).content.decode()
        assert "没有这个文件夹" in refused
        page = client.post(add, {**form, "path": ""}).headers["Location"]
        run(tenant_a, source_of(tenant_a))
        shown = text_of(client, page)
        for word in ("已同步", "新增 1", "被拒 1", "立即运行", "仅在有人要求时"):
            assert word in shown
