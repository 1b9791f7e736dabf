"""Kept in step: what the portal has is what Dify has, whatever happens on the way."""

from knowledge.models import SyncState
from knowledge.services import delete_document, delete_knowledge_base, edit_document
from knowledge.services.bases import edit_knowledge_base
from tests.knowledge.dify.double.state import Document
from tests.knowledge.sync.bench import Bench


def test_sync_new_knowledge_base_puts_it_in_dify(bench: Bench) -> None:
    base = bench.base(description="House rules", top_k=7)
    bench.text(base, "holidays.txt", "Twenty days.", metadata={"team": "hr", "year": 2026})
    bench.settle()
    there = bench.double.dataset("Handbook")
    assert (there.description, there.retrieval["top_k"]) == ("House rules", 7)
    assert bench.in_dify() == {"Handbook": {"holidays.txt": "Twenty days."}}
    (document,) = there.documents.values()
    values = {value["name"]: value["value"] for value in document.metadata.values()}
    assert values == {"team": "hr", "year": 2026}
    assert [bench.double.own.tags[tag] for tag in there.tags] == [
        f"portal:{bench.tenant.tenant.slug}"
    ]
    assert bench.in_step()


def test_sync_what_is_in_step_asks_nothing(bench: Bench) -> None:
    bench.text(bench.base(), "a.txt")
    bench.settle()
    bench.double.seen.clear()
    bench.run()
    assert bench.double.seen == []
    bench.run(look=True)
    assert {method for method, _ in bench.requests()} == {"GET"}
    assert len(bench.requests()) == 2


def test_sync_indexes_the_first_document_alone(bench: Bench) -> None:
    base = bench.base()
    for name in ("a.txt", "b.txt", "c.txt"):
        bench.text(base, name)
    bench.settle()
    assert not any(d.lost for d in bench.double.dataset("Handbook").documents.values())
    assert len(bench.requests("POST", "create-by-text")) == 3


def test_sync_document_that_dify_lost_is_indexed_again(bench: Bench) -> None:
    base = bench.base()
    bench.double.knowledge.lose = 2
    document = bench.text(base, "a.txt")
    bench.settle()
    (there,) = bench.double.dataset("Handbook").documents.values()
    assert not there.lost
    assert bench.link(document.pk).remote_id == there.id


def test_sync_edits_reach_dify(bench: Bench) -> None:
    base = bench.base()
    document = bench.text(base, "a.txt", "one", metadata={"x": "1", "y": True})
    bench.settle()
    edit_knowledge_base(context=bench.context, knowledge_base_id=base.pk, name="Manual", top_k=9)
    bench.text(base, "a.txt", "two")
    edit_document(
        context=bench.context, document_id=document.pk, name="b.txt", metadata={"y": False},
        enabled=False,
    )  # fmt: skip
    bench.settle()
    assert bench.in_dify() == {"Manual": {"b.txt": "two"}}
    there = bench.double.document("Manual", "b.txt")
    assert [value["value"] for value in there.metadata.values()] == ["false"]
    assert not there.enabled
    # Dify replaces the text of what is available alone.
    bench.text(base, "b.txt", "three")
    bench.settle()
    assert bench.in_dify() == {"Manual": {"b.txt": "three"}}
    assert not bench.double.document("Manual", "b.txt").enabled


def test_sync_swapped_names_end_as_they_are_here(bench: Bench) -> None:
    first, second = bench.base("A", description="1"), bench.base("B", description="2")
    bench.settle()
    for base, name in ((first, "C"), (second, "A"), (first, "B")):
        edit_knowledge_base(context=bench.context, knowledge_base_id=base.pk, name=name)
    bench.settle()
    found = {d.name: d.description for d in bench.double.own.datasets.values()}
    assert found == {"A": "2", "B": "1"}


def test_sync_deleted_document_leaves_a_receipt(bench: Bench) -> None:
    base = bench.base()
    document = bench.text(base, "a.txt")
    bench.text(base, "b.txt")
    bench.settle()
    remote = bench.link(document.pk).remote_id
    delete_document(context=bench.context, document_id=document.pk)
    bench.settle()
    assert bench.in_dify() == {"Handbook": {"b.txt": "Twenty days."}}
    (receipt,) = bench.receipts()
    assert (receipt.label, receipt.remote_id) == ("a.txt", remote)
    assert receipt.verified_at is not None


def test_sync_deleted_knowledge_base_goes_with_its_documents(bench: Bench) -> None:
    base = bench.base()
    documents = [bench.text(base, name) for name in ("a.txt", "b.txt")]
    bench.settle()
    remote = {bench.link(document.pk).remote_id for document in documents}
    delete_knowledge_base(context=bench.context, knowledge_base_id=base.pk)
    bench.settle()
    assert bench.in_dify() == {}
    assert bench.links() == []
    (receipt,) = bench.receipts()
    assert set(receipt.contained) == remote


def test_sync_archived_document_stays_archived(bench: Bench) -> None:
    base = bench.base()
    document = bench.text(base, "a.txt")
    bench.settle()
    edit_document(context=bench.context, document_id=document.pk, archived=True)
    bench.settle()
    assert bench.double.document("Handbook", "a.txt").archived
    bench.text(base, "c.txt")
    bench.settle()
    states = {link.label: link.state for link in bench.links(kind="document")}
    assert states == {"a.txt": SyncState.IN_STEP, "c.txt": SyncState.IN_STEP}


def test_sync_copy_that_only_we_can_have_made_goes(bench: Bench) -> None:
    base = bench.base()
    bench.text(base, "a.txt")
    bench.policy("ask")
    bench.settle()
    there = bench.double.document("Handbook", "a.txt")
    twin = Document("a.txt", "a.txt", b"Twenty days.", 2, there.rule, 0, 2)
    bench.double.click(lambda own: bench.double.own.datasets[
        next(iter(own.datasets))].documents.__setitem__(twin.id, twin))  # fmt: skip
    bench.settle(look=True)
    assert bench.in_dify() == {"Handbook": {"a.txt": "Twenty days."}}
