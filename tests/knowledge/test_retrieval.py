"""What is found: by meaning, by words, by both; in Chinese and English; in one's own tenant."""

from collections.abc import Sequence
from random import Random

import psycopg
import pytest

from inference.engines.vectors import Vector, dot, unit
from inference.models import Deployment
from inference.services import set_deployment_enabled
from knowledge.filters import Condition
from knowledge.models import Document, KnowledgeBase, Method
from knowledge.passages import set_vectors, write_passages
from knowledge.retrieval import Found, Question, fused, retrieve
from knowledge.services import add_text, create_knowledge_base, edit_document
from portal.core.errors import Forbidden, Invalid, NotFound, PortalError
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tests.factories import TESTS, Organisation
from tests.knowledge.support import Embedder, index, vector_of
from tests.servers import SessionServers

DOCUMENTS = {
    "travel.txt": ("Refunds of taxi fares need the receipt within 30 days.", {"year": 2026}),
    "报销.txt": ("报销流程:发票必须在月底之前提交给财务部。", {"year": 2025, "lang": "zh"}),
    "pump.txt": ("When pump P-17 shows high vibration, check the bearing.", {"year": 2024}),
    "car.txt": ("The automobile is parked in the yard.", {}),
}


@pytest.fixture
def base(tenant_a: Organisation, embedder: Embedder) -> KnowledgeBase:
    made = create_knowledge_base(
        context=tenant_a.context, name="house", embedding_model=embedder.model, method="hybrid"
    )
    fill(tenant_a, made)
    return made


def fill(tenant: Organisation, base: KnowledgeBase) -> None:
    for name, (text, metadata) in DOCUMENTS.items():
        add_text(
            context=tenant.context,
            knowledge_base_id=base.pk,
            name=name,
            text=text,
            metadata=metadata,  # type: ignore[arg-type]
        )
    index(tenant)


def ask(tenant: Organisation, base: KnowledgeBase, query: str, **options: object) -> Found:
    return retrieve(
        context=tenant.developer.context,
        knowledge_base_id=base.pk,
        question=Question(query, **options),  # type: ignore[arg-type]
    )


def names(found: Found) -> list[str]:
    return [passage.document for passage in found.passages]


@pytest.mark.parametrize(
    ("method", "query", "first"),
    [
        (Method.SEMANTIC, "汽车", "car.txt"),
        (Method.FULL_TEXT, "parking the automobiles", "car.txt"),
        (Method.FULL_TEXT, "发票什么时候提交?", "报销.txt"),
        (Method.FULL_TEXT, "P-17", "pump.txt"),
        (Method.KEYWORD, "VIBRATION bearing", "pump.txt"),
        (Method.KEYWORD, "发票 财务部", "报销.txt"),
        (Method.HYBRID, "水泵 bearing", "pump.txt"),
    ],
)
def test_ask_finds_the_document_that_answers(
    tenant_a: Organisation, base: KnowledgeBase, method: Method, query: str, first: str
) -> None:
    found = ask(tenant_a, base, query, method=method, top_k=2)
    assert names(found)[0] == first
    assert found.degraded == ""
    assert all(0 <= p.score <= 1 for p in found.passages)


def test_ask_by_keywords_wants_every_word(tenant_a: Organisation, base: KnowledgeBase) -> None:
    assert names(ask(tenant_a, base, "vibration bearing", method=Method.KEYWORD)) == ["pump.txt"]
    assert names(ask(tenant_a, base, "vibration taxi", method=Method.KEYWORD)) == []
    found = names(ask(tenant_a, base, "vibration taxi", method=Method.FULL_TEXT))
    assert sorted(found) == ["pump.txt", "travel.txt"]


def test_ask_for_one_chinese_character_finds_words_that_begin_with_it(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    assert names(ask(tenant_a, base, "票", method=Method.FULL_TEXT)) == ["报销.txt"]


def test_ask_scores_rare_words_above_common_ones(tenant_a: Organisation) -> None:
    base = create_knowledge_base(context=tenant_a.context, name="b", embedding_model="")
    for n in range(20):
        text = "the machine report of the day" + (" mentions cavitation" if n == 7 else "")
        add_text(context=tenant_a.context, knowledge_base_id=base.pk, name=f"{n}.txt", text=text)
    index(tenant_a)
    found = ask(tenant_a, base, "machine report cavitation unheard")
    assert found.method == Method.FULL_TEXT
    assert names(found)[0] == "7.txt"
    assert found.passages[0].score > 1.5 * found.passages[1].score


@pytest.mark.parametrize(
    ("conditions", "any_of", "expected"),
    [
        ([Condition("year", "≥", 2025)], False, {"travel.txt", "报销.txt"}),
        ([Condition("year", "=", "2024")], False, {"pump.txt"}),
        ([Condition("lang", "is", "zh")], False, {"报销.txt"}),
        ([Condition("lang", "empty")], False, {"travel.txt", "pump.txt", "car.txt"}),
        ([Condition("document_name", "start with", "Pum")], False, {"pump.txt"}),
        ([Condition("year", ">", 2024), Condition("lang", "is", "zh")], False, {"报销.txt"}),
        (
            [Condition("year", "<", 2025), Condition("lang", "is", "zh")],
            True,
            {"报销.txt", "pump.txt"},
        ),
        ([Condition("x' OR true --", "contains", "' OR 1=1 --")], False, set()),
    ],
)
def test_ask_with_conditions_searches_those_documents_alone(
    tenant_a: Organisation,
    base: KnowledgeBase,
    conditions: Sequence[Condition],
    any_of: bool,
    expected: set[str],
) -> None:
    query = "refund pump automobile 发票"
    for method in (Method.SEMANTIC, Method.FULL_TEXT):
        found = ask(tenant_a, base, query, method=method, conditions=conditions, any_of=any_of)
        assert set(names(found)) == expected


def test_ask_passes_over_disabled_and_archived_documents(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    for change in ({"enabled": False}, {"enabled": True}, {"archived": True}):
        found = ask(tenant_a, base, "P-17 pump", method=Method.HYBRID)
        pump = next((p for p in found.passages if p.document == "pump.txt"), None)
        assert (pump is None) == (change == {"enabled": True})
        if pump is not None:
            document_id = pump.document_id
        edit_document(context=tenant_a.context, document_id=document_id, **change)  # type: ignore[arg-type]
    assert "pump.txt" not in names(ask(tenant_a, base, "P-17 pump", method=Method.SEMANTIC))


def test_ask_with_a_threshold_leaves_out_what_scores_less(
    tenant_a: Organisation, base: KnowledgeBase
) -> None:
    far = ask(tenant_a, base, "汽车", method=Method.SEMANTIC, score_threshold=0.0, top_k=10)
    near = ask(tenant_a, base, "汽车", method=Method.SEMANTIC, score_threshold=0.9)
    assert (len(far.passages), names(near)) == (4, ["car.txt"])


def test_ask_with_a_reranking_model_orders_by_its_scores(
    tenant_a: Organisation, embedder: Embedder
) -> None:
    base = create_knowledge_base(
        context=tenant_a.context,
        name="ranked",
        embedding_model="",
        method="full_text",
        rerank_model=embedder.model,
    )
    fill(tenant_a, base)
    # By words the taxi's is first; the ranking model knows that this asks for an automobile.
    query = "taxi fares of a 汽车 parked"
    assert names(ask(tenant_a, base, query, rerank=False))[0] == "travel.txt"
    assert names(ask(tenant_a, base, query))[0] == "car.txt"


def test_ask_while_the_model_is_away_finds_by_words_and_says_so(
    tenant_a: Organisation, servers: SessionServers
) -> None:
    away = Embedder(servers)
    base = create_knowledge_base(context=tenant_a.context, name="away", embedding_model=away.model)
    with away.serving():
        fill(tenant_a, base)
    deployment = Deployment.objects.get(name=away.deployed.deployment)
    set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)
    found = ask(tenant_a, base, "P-17")
    assert names(found) == ["pump.txt"]
    assert found.degraded.startswith("Found by full text alone")
    with pytest.raises(PortalError):
        ask(tenant_a, base, "P-17", method=Method.SEMANTIC)


def test_ask_in_another_tenants_knowledge_base_finds_no_such(
    tenant_a: Organisation, tenant_b: Organisation, base: KnowledgeBase
) -> None:
    with pytest.raises(NotFound):
        ask(tenant_b, base, "pump")
    with pytest.raises(Forbidden):
        retrieve(
            context=tenant_a.viewer.context, knowledge_base_id=base.pk, question=Question("pump")
        )


def test_word_search_without_row_security_keeps_to_the_scopes_tenant(
    tenant_b: Organisation, base: KnowledgeBase, app_sql: psycopg.Connection
) -> None:
    match = "SELECT * FROM knowledge_match(%s, 'pump', '{}', '{}', false, NULL, 10)"
    counts = {}
    for tenant_id in (base.tenant_id, tenant_b.id):
        with app_sql.transaction():
            app_sql.execute("SELECT set_config('portal.tenant_id', %s, true)", [str(tenant_id)])
            counts[tenant_id] = len(app_sql.execute(match, [base.pk]).fetchall())
    assert counts == {base.tenant_id: 1, tenant_b.id: 0}
    with pytest.raises(psycopg.errors.InsufficientPrivilege), app_sql.transaction():
        app_sql.execute(match, [base.pk])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"query": "  "}, "empty"),
        ({"query": "x" * 2001}, "2000"),
        ({"query": "x", "top_k": 51}, "1 to 50"),
        ({"query": "x", "conditions": [Condition("a", "like", "b")]}, "must be one of"),
        ({"query": "x", "conditions": [Condition("a", ">", "b")]}, "no number"),
    ],
)
def test_ask_wrongly_names_what_is_wrong(
    tenant_a: Organisation, options: dict[str, object], told: str
) -> None:
    base = create_knowledge_base(context=tenant_a.context, name="b", embedding_model="")
    with pytest.raises(Invalid, match=told):
        ask(tenant_a, base, **options)  # type: ignore[arg-type]


def test_fuse_puts_first_what_stands_high_in_both() -> None:
    a, b, c, d = uuid7(), uuid7(), uuid7(), uuid7()
    nearest = {a: 0.92, b: 0.91, d: 0.82}
    assert list(fused(nearest, {b: 1.0, c: 0.9})) == [b, a, c, d]
    assert fused({a: 0.1}, {a: 1.0}) == {a: pytest.approx(1.0)}


def test_fuse_does_not_depend_on_what_cosines_a_model_gives() -> None:
    a, b, c = uuid7(), uuid7(), uuid7()
    words = {c: 0.6}
    wide = fused({a: 0.9, b: 0.5, c: 0.1}, words)
    narrow = fused({a: 0.89, b: 0.87, c: 0.85}, words)
    assert wide == {passage: pytest.approx(score) for passage, score in narrow.items()}


def test_fuse_puts_what_means_the_same_before_what_shares_a_common_word() -> None:
    means, both, words = uuid7(), uuid7(), uuid7()
    nearest = {means: 0.9, **{uuid7(): 0.8 for _ in range(30)}, both: 0.7}
    assert next(iter(fused(nearest, {both: 0.3, words: 0.3}))) == means


def test_fuse_puts_what_has_every_word_before_what_is_a_little_nearer() -> None:
    nearer, exact = uuid7(), uuid7()
    nearest = {nearer: 0.86, exact: 0.85, **{uuid7(): 0.8 - n / 100 for n in range(10)}}
    assert next(iter(fused(nearest, {exact: 1.0}))) == exact


def test_fuse_without_vectors_is_what_words_found() -> None:
    a = uuid7()
    assert fused({}, {a: 0.8}) == {a: 0.8}


def test_nearest_passages_are_the_exact_ones(tenant_a: Organisation, embedder: Embedder) -> None:
    base = create_knowledge_base(
        context=tenant_a.context, name="many", embedding_model=embedder.model
    )
    add_text(context=tenant_a.context, knowledge_base_id=base.pk, name="m.txt", text="pump")
    index(tenant_a)
    chance = Random(5)
    vectors = [unit([chance.gauss(0, 1) for _ in range(5)]) for _ in range(2000)]
    with tenant_scope(tenant_a.context):
        document = Document.objects.get(knowledge_base_id=base.pk)
        write_passages(document, [str(n) for n in range(len(vectors))])
        # A model's vectors need not have the length 1.
        longer = [Vector("f", [3 * number for number in vector]) for vector in vectors]
        set_vectors(document, range(len(vectors)), longer)
    asked = vector_of("a car and a pump")
    exact = sorted(range(len(vectors)), key=lambda n: -dot(asked, vectors[n]))[:50]
    found = ask(tenant_a, base, "a car and a pump", method=Method.SEMANTIC, top_k=50).passages
    assert [passage.text for passage in found] == [str(n) for n in exact]
    expected = [dot(asked, vectors[n]) for n in exact]
    assert [passage.score for passage in found] == pytest.approx(expected, abs=1e-3)
