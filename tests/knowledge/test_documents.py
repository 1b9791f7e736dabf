"""Documents from upload to what is searched, with crashes, refusals and new versions between."""

import pytest

from knowledge.indexing import MOST_READERS, PASSAGES_A_JOB, _claim, embed_step, read_step
from knowledge.models import (
    Chunk,
    ChunkVector,
    Document,
    DocumentState,
    DocumentVersion,
    KnowledgeBase,
)
from knowledge.selectors import diff, get_version
from knowledge.services import (
    add_file,
    add_text,
    create_knowledge_base,
    delete_document,
    delete_knowledge_base,
    edit_document,
    edit_knowledge_base,
    index_again,
)
from knowledge.turns import Turns, Work
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey, LedgerEntry
from tenants.services import revoke_api_key, set_quota
from tests.factories import Organisation
from tests.knowledge import files
from tests.knowledge.support import Embedder, document_now, hurry, index, step


def make_base(tenant: Organisation, name: str = "rules", **settings: object) -> KnowledgeBase:
    settings.setdefault("embedding_model", "")
    return create_knowledge_base(context=tenant.owner.context, name=name, **settings)


def add(tenant: Organisation, base: KnowledgeBase, text: str, name: str = "a.txt") -> Document:
    return add_text(context=tenant.owner.context, knowledge_base_id=base.pk, name=name, text=text)


def chunks(tenant: Organisation, document: Document) -> list[tuple[int, str, bool]]:
    """Version, text, and whether it has a vector, of each passage."""
    with tenant_scope(tenant.context):
        found = Chunk.objects.filter(document_id=document.pk).order_by("version", "position")
        return [
            (version, text, vector is not None)
            for version, text, vector in found.values_list("version", "text", "vector")
        ]


def test_add_file_is_read_and_ready(tenant_a: Organisation) -> None:
    base = make_base(tenant_a)
    document = add_file(
        context=tenant_a.developer.context,
        knowledge_base_id=base.pk,
        name="C:\\Users\\me\\报销.docx",
        content=files.docx("发票必须在月底之前提交。"),
        metadata={"year": 2026},
    )
    assert (document.name, document.state) == ("报销.docx", DocumentState.WAITING)
    index(tenant_a)
    now = document_now(tenant_a, document)
    assert (now.state, now.version, now.passages) == (DocumentState.READY, 1, 1)
    assert chunks(tenant_a, document) == [(1, "发票必须在月底之前提交。", False)]
    with tenant_scope(tenant_a.context):
        kept = DocumentVersion.objects.get(document_id=document.pk)
        # The file itself is gone as soon as its text is there.
        assert (kept.content, kept.text) == (None, "发票必须在月底之前提交。")


def test_add_documents_with_a_model_embeds_and_charges_them(
    tenant_a: Organisation, embedder: Embedder
) -> None:
    base = make_base(tenant_a, embedding_model=embedder.model)
    text = "\n\n".join(f"{n} car " + "x" * 900 for n in range(PASSAGES_A_JOB + 3))
    document = add(tenant_a, base, text)
    index(tenant_a)
    now = document_now(tenant_a, document)
    assert (now.state, now.error) == (DocumentState.READY, "")
    assert now.parts_done == now.passages == len(chunks(tenant_a, document)) > PASSAGES_A_JOB
    assert all(embedded for _, _, embedded in chunks(tenant_a, document))
    assert now.embedded_by == f"{embedder.model}@1"
    with tenant_scope(tenant_a.context):
        assert base.api_key_id is not None
        key = ApiKey.objects.get(pk=base.api_key_id)
        spent = LedgerEntry.objects.filter(api_key_id=key.pk)
        assert (key.name, spent.count()) == ("Knowledge bases", 2)
        assert all(entry.prompt_tokens > 0 for entry in spent)


def test_add_the_same_name_again_is_a_version_and_the_same_text_is_nothing(
    tenant_a: Organisation,
) -> None:
    base = make_base(tenant_a)
    first = add(tenant_a, base, "Pay by cash.\nKeep it.")
    index(tenant_a)
    assert add(tenant_a, base, "Pay by cash.\nKeep it.").latest == 1
    again = add(tenant_a, base, "Pay by card.\nKeep it.")
    assert (again.pk, again.latest, again.version) == (first.pk, 2, 1)
    assert chunks(tenant_a, first) == [(1, "Pay by cash.\nKeep it.", False)]
    index(tenant_a)
    assert chunks(tenant_a, first) == [(2, "Pay by card.\nKeep it.", False)]
    with tenant_scope(tenant_a.context):
        now = Document.objects.get(pk=first.pk)
        assert get_version(now, 1).text == "Pay by cash.\nKeep it."
        assert list(diff(now, 1, 2))[3:] == ["-Pay by cash.", "+Pay by card.", " Keep it."]


def test_refused_file_keeps_nothing_and_others_go_on(tenant_a: Organisation) -> None:
    base = make_base(tenant_a)
    for name, content in (("scan.pdf", files.pdf()), ("bomb.docx", files.bomb())):
        with pytest.raises(Invalid):
            add_file(
                context=tenant_a.context, knowledge_base_id=base.pk, name=name, content=content
            )
    add(tenant_a, base, "good")
    index(tenant_a)
    with tenant_scope(tenant_a.context):
        assert [d.name for d in Document.objects.all()] == ["a.txt"]


def test_reader_that_dies_is_followed_by_another_and_not_forever(tenant_a: Organisation) -> None:
    base = make_base(tenant_a)
    document = add(tenant_a, base, "deadly")
    system = Context.system("knowledge", tenant_id=tenant_a.id)
    for attempt in range(MOST_READERS):
        hurry(tenant_a)
        with tenant_scope(system):
            claim = _claim(document.pk)
        # It is killed here: nothing but the claim is written.
        assert claim is not None
        assert claim.attempt == attempt + 1
        assert read_step(tenant_a.id, document.pk) is False, "the claim holds"
    hurry(tenant_a)
    assert read_step(tenant_a.id, document.pk) is False
    now = document_now(tenant_a, document)
    assert (now.state, now.version) == (DocumentState.FAILED, 0)
    assert "can't be read" in now.error
    index_again(context=tenant_a.context, document_id=document.pk)
    index(tenant_a)
    assert document_now(tenant_a, document).state == DocumentState.READY


def test_embedding_whose_process_dies_submits_no_second_job(
    tenant_a: Organisation, embedder: Embedder
) -> None:
    base = make_base(tenant_a, embedding_model=embedder.model)
    document = add(tenant_a, base, "a car")
    step(tenant_a)
    hurry(tenant_a)
    embed_step(tenant_a.id, document.pk)
    job = document_now(tenant_a, document).job_id
    assert job is not None
    # Whoever comes next finds the job in the row.
    index(tenant_a)
    assert document_now(tenant_a, document).state == DocumentState.READY
    with tenant_scope(tenant_a.context):
        assert LedgerEntry.objects.filter(api_key_id=base.api_key_id).count() == 1


def test_quota_that_is_used_up_is_waited_for_in_words(
    tenant_a: Organisation, embedder: Embedder
) -> None:
    base = make_base(tenant_a, embedding_model=embedder.model)
    set_quota(
        context=tenant_a.context, api_key_id=base.api_key_id, tokens_minute=20, requests_minute=1
    )
    document = add(tenant_a, base, "car")
    add(tenant_a, base, "money", name="b.txt")
    for _ in range(4):
        step(tenant_a)
    with tenant_scope(tenant_a.context):
        held = [d.waiting_for for d in Document.objects.all() if d.waiting_for]
    assert len(held) == 1
    assert "requests" in held[0]
    assert document_now(tenant_a, document).error == ""


def test_revoked_key_fails_with_what_to_do_and_is_replaced_by_saving(
    tenant_a: Organisation, embedder: Embedder
) -> None:
    base = make_base(tenant_a, embedding_model=embedder.model)
    assert base.api_key_id is not None
    revoke_api_key(context=tenant_a.context, api_key_id=base.api_key_id, reason="test")
    document = add(tenant_a, base, "a car")
    index(tenant_a)
    now = document_now(tenant_a, document)
    assert now.state == DocumentState.FAILED
    assert "save the knowledge base's settings" in now.error
    assert now.version == 1, "it is found by its words"
    saved = edit_knowledge_base(context=tenant_a.context, knowledge_base_id=base.pk)
    assert saved.api_key_id != base.api_key_id
    index_again(context=tenant_a.context, document_id=document.pk)
    index(tenant_a)
    assert document_now(tenant_a, document).state == DocumentState.READY


def test_text_that_the_model_cannot_read_whole_is_embedded_by_its_beginning(
    tenant_a: Organisation, embedder: Embedder
) -> None:
    base = make_base(tenant_a, embedding_model=embedder.model)
    # The model counts bytes, of which these have four each, and reads 4,096.
    document = add(tenant_a, base, "\U0001f697" * 1200)
    index(tenant_a)
    assert document_now(tenant_a, document).state == DocumentState.READY
    assert max(len(t.encode()) for texts in embedder.asked for t in texts) <= 4096


def test_another_embedding_model_indexes_anew(tenant_a: Organisation, embedder: Embedder) -> None:
    base = make_base(tenant_a)
    document = add(tenant_a, base, "a car")
    index(tenant_a)
    assert chunks(tenant_a, document) == [(1, "a car", False)]
    edit_knowledge_base(
        context=tenant_a.context, knowledge_base_id=base.pk, embedding_model=embedder.model
    )
    assert document_now(tenant_a, document).version == 1, "it is found meanwhile"
    index(tenant_a)
    assert chunks(tenant_a, document) == [(1, "a car", True)]


def test_vectors_of_a_model_that_is_exchanged_meanwhile_are_made_anew(
    tenant_a: Organisation, embedder: Embedder
) -> None:
    base = make_base(tenant_a, embedding_model=embedder.model)
    text = "\n\n".join(f"{n} car " + "x" * 900 for n in range(PASSAGES_A_JOB + 3))
    document = add(tenant_a, base, text)
    while document_now(tenant_a, document).parts_done == 0:
        step(tenant_a)
    with tenant_scope(tenant_a.context):
        Document.objects.filter(pk=document.pk).update(maker="another@1")
    index(tenant_a)
    now = document_now(tenant_a, document)
    assert (now.state, now.embedded_by) == (DocumentState.READY, f"{embedder.model}@1")
    assert now.parts_done == now.parts == len(chunks(tenant_a, document))
    assert all(embedded for _, _, embedded in chunks(tenant_a, document))


def test_vectors_go_with_their_passages(tenant_a: Organisation, embedder: Embedder) -> None:
    base = make_base(tenant_a, embedding_model=embedder.model)
    document = add(tenant_a, base, "a car")
    index(tenant_a)
    add(tenant_a, base, "another car")
    index(tenant_a)
    with tenant_scope(tenant_a.context):
        assert [v.version for v in ChunkVector.objects.filter(document_id=document.pk)] == [2]
    delete_document(context=tenant_a.context, document_id=document.pk)
    with tenant_scope(tenant_a.context):
        assert not ChunkVector.objects.filter(document_id=document.pk).exists()


def test_turns_find_the_due_of_every_tenant(tenant_a: Organisation, tenant_b: Organisation) -> None:
    made = [(t, add(t, make_base(t), "hello")) for t in (tenant_a, tenant_b)]
    due = (
        f"SELECT tenant_id, id FROM knowledge_document WHERE state = {DocumentState.WAITING.value}"
    )
    work = Work("documents", due, read_step, Document)
    turns = Turns(env().database_url("gateway"), work)
    turns.take(seconds=30)
    turns.close()
    assert {document_now(t, d).state for t, d in made} == {DocumentState.READY}


def test_deleted_document_and_base_leave_nothing(tenant_a: Organisation) -> None:
    base = make_base(tenant_a)
    document, other = add(tenant_a, base, "one"), add(tenant_a, base, "two", name="b.txt")
    index(tenant_a)
    delete_document(context=tenant_a.context, document_id=document.pk)
    assert (chunks(tenant_a, document), len(chunks(tenant_a, other))) == ([], 1)
    delete_knowledge_base(context=tenant_a.context, knowledge_base_id=base.pk)
    with tenant_scope(tenant_a.context):
        assert not Chunk.objects.exists()
        assert not DocumentVersion.objects.exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": ""}, "1 to 40"),
        ({"name": "x" * 41}, "1 to 40"),
        ({"top_k": 0}, "1 to 50"),
        ({"score_threshold": 1.5}, "0 to 1"),
        ({"method": "magic"}, "must be one of"),
        ({"method": "semantic"}, "needs an embedding model"),
        ({"embedding_model": "no-such-model"}, "served here"),
        ({"prompt_template": "{{query}} alone"}, "{{context}}"),
        ({"colour": "red"}, "can't be set"),
    ],
)
def test_make_a_knowledge_base_with_a_wrong_field_names_it(
    tenant_a: Organisation, settings: dict[str, object], told: str
) -> None:
    with pytest.raises(Invalid, match=told.replace("{", r"\{")) as refusal:
        make_base(tenant_a, **{"name": "fine", **settings})  # type: ignore[arg-type]
    assert refusal.value.param in settings


def test_names_are_unique_in_a_tenant_alone(tenant_a: Organisation, tenant_b: Organisation) -> None:
    base = make_base(tenant_a)
    make_base(tenant_b)
    with pytest.raises(Conflict):
        make_base(tenant_a)
    with pytest.raises(NotFound):
        add(tenant_b, base, "text of b in a base of a")


def test_viewers_read_and_change_nothing(tenant_a: Organisation) -> None:
    base = make_base(tenant_a)
    document = add(tenant_a, base, "text")
    viewer = tenant_a.viewer.context
    with pytest.raises(Forbidden):
        create_knowledge_base(context=viewer, name="theirs")
    with pytest.raises(Forbidden):
        edit_document(context=viewer, document_id=document.pk, enabled=False)
    with pytest.raises(Forbidden):
        delete_knowledge_base(context=viewer, knowledge_base_id=base.pk)


def test_room_of_a_tenant_is_bounded(
    tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_base(tenant_a)
    small = env().model_copy(update={"max_tenant_knowledge_bytes": 1024})
    monkeypatch.setattr("knowledge.services.documents.env", lambda: small)
    add(tenant_a, base, "x" * 1000)
    with pytest.raises(Conflict, match="delete some first"):
        add(tenant_a, base, "y" * 100, name="b.txt")
