"""Words that stand in more passages than are looked at one by one."""

from typing import Any

import pytest

from knowledge.filters import Condition
from knowledge.models import Document, KnowledgeBase, Method
from knowledge.passages import write_passages
from knowledge.retrieval import Passage, Question, retrieve
from knowledge.services import add_text, create_knowledge_base, edit_document
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation
from tests.knowledge.support import index

MANY = 2100
"""More than knowledge_match() scores of one word."""


@pytest.fixture
def base(tenant_a: Organisation) -> KnowledgeBase:
    """``valve`` and ``gauge`` are everywhere, together only where the last documents have them."""
    made = create_knowledge_base(context=tenant_a.context, name="works", embedding_model="")
    add(tenant_a, made, "valves", [f"the valve of line {n}" for n in range(MANY)])
    add(tenant_a, made, "gauges", [f"the gauge of line {n}" for n in range(MANY)])
    add(tenant_a, made, "both", [f"valve and gauge of line {n}" for n in range(60)])
    add(tenant_a, made, "rare", ["cavitation", "valve with cavitation"], plant="north")
    return made


def add(
    tenant: Organisation, base: KnowledgeBase, name: str, texts: list[str], **metadata: Any
) -> None:
    """A document of just these passages."""
    add_text(
        context=tenant.context,
        knowledge_base_id=base.pk,
        name=f"{name}.txt",
        text=texts[0],
        metadata=metadata,
    )
    index(tenant)
    with tenant_scope(tenant.context):
        document = Document.objects.get(knowledge_base_id=base.pk, name=f"{name}.txt")
        write_passages(document, texts)
        Document.objects.filter(pk=document.pk).update(passages=len(texts))


def ask(tenant: Organisation, base: KnowledgeBase, query: str, **options: Any) -> list[Passage]:
    question = Question(query, **options)
    context = tenant.developer.context
    return retrieve(context=context, knowledge_base_id=base.pk, question=question).passages


def test_ask_for_common_words_finds_the_passages_that_have_all_of_them(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    found = ask(tenant_a, base, "gauge valve", top_k=50)
    assert {p.document for p in found} == {"both.txt"}
    assert len(found) == 50


def test_ask_for_one_common_word_fills_the_answer(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    assert len(ask(tenant_a, base, "valve unheard", top_k=50)) == 50


def test_ask_for_rare_and_common_words_finds_both_the_rare_ones_first(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    found = ask(tenant_a, base, "cavitation of a valve at a gauge", top_k=10)
    assert [p.text for p in found[:2]] == ["valve with cavitation", "cavitation"]
    assert {p.document for p in found[2:]} == {"both.txt"}


def test_ask_for_all_of_the_common_words_wants_each(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    found = ask(tenant_a, base, "gauge valve", method=Method.KEYWORD, top_k=50)
    assert {p.document for p in found} == {"both.txt"}


def test_ask_with_conditions_looks_for_common_words_in_those_documents(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    conditions = [Condition("plant", "is", "north")]
    found = ask(tenant_a, base, "valve gauge", conditions=conditions)
    assert [p.text for p in found] == ["valve with cavitation"]


def test_ask_for_common_words_passes_over_disabled_documents(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    with tenant_scope(tenant_a.context):
        common = Document.objects.filter(knowledge_base_id=base.pk).exclude(name="rare.txt")
        ids = list(common.values_list("pk", flat=True))
    for document_id in ids:
        edit_document(context=tenant_a.context, document_id=document_id, enabled=False)
    assert [p.text for p in ask(tenant_a, base, "valve gauge")] == ["valve with cavitation"]
