"""Knowledge bases over the management API, and as Dify's External Knowledge API."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests import factories
from tests.api.callers import Caller, Reply, key_caller, session_caller
from tests.factories import Organisation
from tests.knowledge import files
from tests.knowledge.support import index


@pytest.fixture
def caller(tenant_a: Organisation) -> Caller:
    return key_caller(factories.api_key(tenant_a, scopes=["knowledge:write"]).token)


@pytest.fixture
def reader(tenant_a: Organisation) -> Caller:
    return key_caller(factories.api_key(tenant_a, scopes=["knowledge:read"]).token)


def make_base(caller: Caller, **settings: Any) -> dict[str, Any]:
    made = caller.post("knowledge-bases", {"name": "rules", "embedding_model": "", **settings})
    assert made.status_code == 201, made.content
    return dict(made.json())


def upload(caller: Caller, base: dict[str, Any], name: str, content: bytes, **more: Any) -> Reply:
    return caller.client.post(
        f"/api/v1/knowledge-bases/{base['id']}/files",
        {"file": SimpleUploadedFile(name, content), **more},
        headers=caller.headers,
    )


def test_manage_a_knowledge_base_from_first_to_last(
    caller: Caller, reader: Caller, tenant_a: Organisation
) -> None:
    base = make_base(caller)
    assert (base["method"], base["documents"]) == ("full_text", 0)
    edited = caller.call("PATCH", f"knowledge-bases/{base['id']}", {"top_k": 3})
    assert edited.json()["top_k"] == 3
    assert [b["id"] for b in reader.get("knowledge-bases").json()["items"]] == [base["id"]]
    text = {"name": "a.txt", "text": "Pay by card."}
    assert caller.post(f"knowledge-bases/{base['id']}/documents", text).status_code == 201
    index(tenant_a)
    assert reader.get(f"knowledge-bases/{base['id']}").json()["documents_ready"] == 1
    assert reader.call("DELETE", f"knowledge-bases/{base['id']}").status_code == 403
    assert caller.call("DELETE", f"knowledge-bases/{base['id']}").status_code == 204
    assert reader.get(f"knowledge-bases/{base['id']}").status_code == 404


def test_upload_a_file_and_ask_for_it(
    caller: Caller, reader: Caller, tenant_a: Organisation
) -> None:
    base = make_base(caller)
    content = files.docx("发票必须在月底之前提交。")
    made = upload(caller, base, "报销.docx", content, metadata=json.dumps({"year": 2026}))
    assert (made.status_code, made.json()["state"]) == (201, "waiting")
    index(tenant_a)
    document = reader.get(f"documents/{made.json()['id']}").json()
    assert (document["state"], document["metadata"]) == ("ready", {"year": 2026})
    found = reader.post(
        f"knowledge-bases/{base['id']}/retrieve",
        {
            "query": "发票什么时候提交",
            "metadata_condition": {
                "conditions": [{"name": "year", "comparison_operator": "=", "value": 2026}]
            },
        },
    ).json()
    (passage,) = found["passages"]
    assert (passage["document"], passage["text"]) == ("报销.docx", "发票必须在月底之前提交。")
    assert (found["method"], found["degraded"]) == ("full_text", "")


def test_upload_what_cannot_be_read_is_a_sentence(caller: Caller) -> None:
    base = make_base(caller)
    refused = upload(caller, base, "scan.pdf", files.pdf())
    assert (refused.status_code, refused.json()["code"]) == (400, "unreadable_file")
    assert "OCR" in refused.json()["detail"]
    assert upload(caller, base, "empty.txt", b"").status_code == 400
    assert upload(caller, base, "a.txt", b"x", metadata="[1]").status_code == 400
    assert caller.get(f"knowledge-bases/{base['id']}/documents").json()["items"] == []


def test_read_versions_and_what_is_between_them(caller: Caller, tenant_a: Organisation) -> None:
    base = make_base(caller)
    for text in ("Pay by cash.", "Pay by card."):
        sent = {"name": "a.txt", "text": text}
        document = caller.post(f"knowledge-bases/{base['id']}/documents", sent).json()
        index(tenant_a)
    path = f"documents/{document['id']}"
    assert [v["number"] for v in caller.get(f"{path}/versions").json()["items"]] == [2, 1]
    assert caller.get(f"{path}/text?version=1").json()["text"] == "Pay by cash."
    assert caller.get(f"{path}/text").json()["text"] == "Pay by card."
    assert caller.get(f"{path}/diff").json()["lines"][3:] == ["-Pay by cash.", "+Pay by card."]
    assert caller.get(f"{path}/diff?from=7").status_code == 404
    assert caller.get(f"{path}/diff?to=x").status_code == 400


def test_disable_archive_and_index_again(caller: Caller, tenant_a: Organisation) -> None:
    base = make_base(caller)
    document = upload(caller, base, "a.txt", b"hello").json()
    index(tenant_a)
    path = f"documents/{document['id']}"
    assert caller.call("PATCH", path, {"enabled": False}).json()["enabled"] is False
    assert caller.call("PATCH", path, {"archived": True}).json()["archived"] is True
    assert caller.call("PATCH", path, {"metadata": {"a": [1]}}).status_code == 400
    assert caller.post(f"{path}/index", {}).json()["state"] == "waiting"
    documents = f"knowledge-bases/{base['id']}/documents"
    assert len(caller.get(f"{documents}?state=waiting").json()["items"]) == 1
    assert caller.get(f"{documents}?state=lost").status_code == 400
    assert caller.call("DELETE", path).status_code == 204


def test_page_the_list_of_documents_in_a_fixed_number_of_statements(
    tenant_a: Organisation, caller: Caller
) -> None:
    base = make_base(caller)
    person = session_caller(tenant_a.developer.user, tenant_a.id)
    counts = []
    for number in range(3):
        upload(caller, base, f"{number}.txt", b"hello")
        with CaptureQueriesContext(connection) as statements:
            person.get(f"knowledge-bases/{base['id']}/documents")
        counts.append(len(statements))
    assert len(set(counts)) == 1


# -- Dify ----------------------------------------------------------------------------------------


def ask_as_dify(caller: Caller, base: dict[str, Any], **more: Any) -> Reply:
    """The call as Dify 1.16 makes it."""
    return caller.post(
        "external-knowledge/retrieval",
        {
            "retrieval_setting": {"top_k": 3, "score_threshold": 0.2},
            "query": "card",
            "knowledge_id": base["id"],
            "metadata_condition": None,
            **more,
        },
    )


def test_ask_as_dify_gives_records_with_metadata(
    caller: Caller, reader: Caller, tenant_a: Organisation
) -> None:
    base = make_base(caller)
    upload(caller, base, "pay.txt", b"Pay by card.")
    index(tenant_a)
    answer = ask_as_dify(reader, base)
    assert answer.status_code == 200
    (record,) = answer.json()["records"]
    assert set(record) == {"content", "score", "title", "metadata"}
    assert (record["content"], record["title"]) == ("Pay by card.", "pay.txt")
    assert 0.2 <= record["score"] <= 1
    assert record["metadata"]["version"] == 1
    condition = {"name": ["document_name"], "comparison_operator": "contains", "value": "zzz"}
    filtered = {"logical_operator": "and", "conditions": [condition]}
    assert ask_as_dify(reader, base, metadata_condition=filtered).json() == {"records": []}


def test_refuse_dify_in_its_own_shape(
    caller: Caller, reader: Caller, tenant_b: Organisation
) -> None:
    base = make_base(caller)
    theirs = key_caller(factories.api_key(tenant_b, scopes=["knowledge:read"]).token)
    for answer, status, code in (
        (ask_as_dify(reader, {"id": "portal-kb-42"}), 404, 2001),
        (ask_as_dify(theirs, base), 404, 2001),
        (ask_as_dify(key_caller("wrong"), base), 403, "invalid_api_key"),
        (ask_as_dify(reader, base, query=""), 400, "invalid"),
        # What Dify sends when it is set up: anything but 403, 404 and 502 will do.
        (reader.post("external-knowledge/retrieval", {}), 400, "invalid"),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (status, code)
        assert answer.json()["error_msg"]
