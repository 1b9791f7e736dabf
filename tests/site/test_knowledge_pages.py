"""Pages of knowledge bases: filled, asked, compared, in both languages, without a script too."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import translation

from knowledge.models import Document, KnowledgeBase
from knowledge.services import add_text, create_knowledge_base
from portal.core.tenancy import tenant_scope
from tests.factories import Member, Organisation
from tests.knowledge import files
from tests.knowledge.support import index

LIST = "/admin/knowledge/knowledgebase/"


def client_of(member: Member, **headers: str) -> Client:
    client = Client(headers=headers)
    client.force_login(member.user)
    return client


@pytest.fixture
def base(tenant_a: Organisation) -> KnowledgeBase:
    return create_knowledge_base(context=tenant_a.context, name="House rules", embedding_model="")


def page_of(base: KnowledgeBase) -> str:
    return f"{LIST}{base.pk}/"


def text_of(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


def test_empty_list_says_what_to_do_and_a_form_makes_the_first(tenant_a: Organisation) -> None:
    client = client_of(tenant_a.developer)
    assert "No knowledge base yet" in text_of(client, LIST)
    form = {"name": "Rules", "method": "full_text", "top_k": "5", "prompt_template": "none"}
    refused = client.post(f"{LIST}add/", form)
    assert refused.status_code == 400
    assert "{{context}} and {{query}}" in refused.content.decode()
    made = client.post(f"{LIST}add/", {**form, "prompt_template": "{{context}} {{query}}"})
    assert made.status_code == 302
    page = text_of(client, made.headers["Location"])
    assert "found by their words and not by their meaning" in page
    assert "No document yet" in page


def test_upload_without_a_script_adds_some_and_refuses_others(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    client = client_of(tenant_a.developer)
    sent = [
        SimpleUploadedFile("good.txt", b"Pay by card."),
        SimpleUploadedFile("scan.pdf", files.pdf()),
    ]
    page = client.post(f"{page_of(base)}upload/", {"file": sent}, follow=True).content.decode()
    assert "1 file is being indexed." in page
    assert "scan.pdf: There is no text in the PDF" in page
    assert "Waiting to be read" in page
    index(tenant_a)
    live = text_of(client, f"{page_of(base)}live/")
    assert "good.txt" in live
    assert "Ready" in live


def test_upload_by_a_script_is_answered_in_json(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    client = client_of(tenant_a.developer, Accept="application/json")
    good = {"file": SimpleUploadedFile("good.txt", b"text")}
    assert client.post(f"{page_of(base)}upload/", good).json() == {"refused": {}}
    bad = client.post(f"{page_of(base)}upload/", {"file": SimpleUploadedFile("x.exe", b"MZ")})
    assert bad.status_code == 400
    assert "use txt" in bad.json()["refused"]["x.exe"]


def test_ask_on_the_page_shows_passages_with_their_scores(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    add_text(context=tenant_a.context, knowledge_base_id=base.pk, name="a.txt", text="Pay by card.")
    index(tenant_a)
    client = client_of(tenant_a.developer)
    assert "what an app would be given" in text_of(client, f"{page_of(base)}ask/")
    asked = {"query": "card", "method": "full_text"}
    found = client.post(f"{page_of(base)}ask/", asked).content.decode()
    assert "Pay by card." in found
    assert "Score" in found
    nothing = client.post(f"{page_of(base)}ask/", {**asked, "query": "cheese"}).content.decode()
    assert "Nothing was found" in nothing


def test_document_page_shows_text_versions_and_what_changed(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    for text in ("Pay by cash.", "Pay by card."):
        document = add_text(
            context=tenant_a.context, knowledge_base_id=base.pk, name="a.txt", text=text
        )
        index(tenant_a)
    client = client_of(tenant_a.developer)
    path = f"/admin/knowledge/document/{document.pk}/"
    assert "Pay by card." in text_of(client, path)
    changed = text_of(client, f"{path}?version=2")
    assert "<del>-Pay by cash.</del>" in changed
    assert "<ins>+Pay by card.</ins>" in changed
    assert "There is no such version." in text_of(client, f"{path}?version=1")
    for page, state in (("disable", "Switched off"), ("enable", "Ready"), ("archive", "Archived")):
        assert state in client.post(f"{path}{page}/", follow=True).content.decode()
    client.post(f"{path}delete/")
    with tenant_scope(tenant_a.context):
        assert not Document.objects.exists()


def test_pages_for_viewers_read_and_offer_no_change(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    client = client_of(tenant_a.viewer)
    page = text_of(client, page_of(base))
    assert "Add documents" not in page
    assert "Edit settings" not in page
    assert client.post(f"{page_of(base)}upload/").status_code == 403
    assert client.get(f"{page_of(base)}edit/").status_code == 403


def test_pages_of_knowledge_speak_chinese(tenant_a: Organisation, base: KnowledgeBase) -> None:
    client = client_of(tenant_a.developer)
    client.cookies["django_language"] = "zh-hans"
    # A request leaves its language behind on this thread.
    with translation.override("zh-hans"):
        page = text_of(client, page_of(base))
        assert "添加文档" in page
        assert "测试检索" in page
        sent = {"file": SimpleUploadedFile("scan.pdf", files.pdf())}
        refused = client.post(f"{page_of(base)}upload/", sent, follow=True).content.decode()
        assert "文字识别" in refused
