"""What people change in Dify: put back, taken over, or left to be decided."""

from collections.abc import Callable

import psycopg
import pytest

from knowledge.models import Document, KnowledgeBase, SyncState
from knowledge.selectors import get_version
from knowledge.services import edit_document
from knowledge.sync.planning import Verb
from knowledge.sync.selectors import steps_of
from knowledge.sync.services import decide
from portal.core.errors import Conflict, Forbidden, NotFound
from portal.core.tenancy import tenant_scope
from tests.knowledge.dify.double import state
from tests.knowledge.support import document_now, index
from tests.knowledge.sync.bench import Bench
from tests.knowledge.sync.moves import faults_of

Change = Callable[[state.Dataset, state.Document], None]


def click(bench: Bench, change: Change) -> None:
    """Somebody changes the one knowledge base, or its one document, in Dify."""

    def do(own: state.Workspace) -> None:
        (dataset,) = own.datasets.values()
        (document,) = dataset.documents.values()
        change(dataset, document)

    bench.double.click(do)


def rewrite(dataset: state.Dataset, document: state.Document) -> None:
    document.content, document.file_id = b"Thirty days.", state.new_id()
    document.split()


def rename(dataset: state.Dataset, document: state.Document) -> None:
    dataset.name, dataset.retrieval = "Theirs", {**dataset.retrieval, "top_k": 11}


def remove(dataset: state.Dataset, document: state.Document) -> None:
    del dataset.documents[document.id]


def upload(dataset: state.Dataset, document: state.Document) -> None:
    made = state.Document("new.txt", "new.txt", b"Added.", 2, {}, 0, 2, updated=True)
    made.split()
    dataset.documents[made.id] = made


def replace_it(dataset: state.Dataset, document: state.Document) -> None:
    upload(dataset, document)
    remove(dataset, document)


@pytest.fixture
def placed(bench: Bench) -> Document:
    """A document that is in step."""
    document = bench.text(bench.base(), "a.txt")
    bench.settle(look=True)
    bench.run(look=True)
    return document


def text_now(bench: Bench, document: Document) -> str | None:
    with tenant_scope(bench.context):
        return get_version(document, document_now(bench.tenant, document).version).text


@pytest.mark.parametrize("change", [rewrite, rename, remove, upload])
def test_ours_wins_puts_back_what_was_changed(
    bench: Bench, placed: Document, change: Change
) -> None:
    click(bench, change)
    bench.settle(look=True)
    assert bench.in_dify() == {"Handbook": {"a.txt": "Twenty days."}}
    assert bench.double.dataset("Handbook").retrieval["top_k"] == 5


def test_theirs_wins_makes_a_text_a_new_version(bench: Bench, placed: Document) -> None:
    bench.policy("theirs")
    click(bench, rewrite)
    bench.settle(look=True)
    index(bench.tenant)
    bench.settle(look=True)
    assert text_now(bench, placed) == "Thirty days."
    assert document_now(bench.tenant, placed).version == 2
    assert bench.in_dify() == {"Handbook": {"a.txt": "Thirty days."}}


def test_theirs_wins_takes_settings_of_a_knowledge_base(bench: Bench, placed: Document) -> None:
    bench.policy("theirs")
    click(bench, rename)
    bench.settle(look=True)
    with tenant_scope(bench.context):
        base = KnowledgeBase.objects.get(pk=placed.knowledge_base_id)
    assert (base.name, base.top_k) == ("Theirs", 11)


def test_theirs_wins_archives_what_was_deleted_and_takes_what_was_added(
    bench: Bench, placed: Document
) -> None:
    bench.policy("theirs")
    click(bench, replace_it)
    bench.settle(look=True)
    index(bench.tenant)
    bench.settle(look=True)
    assert document_now(bench.tenant, placed).archived_at is not None
    with tenant_scope(bench.context):
        added = Document.objects.get(name="new.txt")
    assert text_now(bench, added) == "Added."
    assert bench.in_dify() == {"Handbook": {"new.txt": "Added."}}


def test_theirs_wins_keeps_a_deleted_knowledge_base_here_alone(
    bench: Bench, placed: Document
) -> None:
    bench.policy("theirs")
    bench.double.click(lambda own: own.datasets.clear())
    bench.settle(look=True)
    with tenant_scope(bench.context):
        assert KnowledgeBase.objects.get(pk=placed.knowledge_base_id).connection_id is None
    assert (bench.in_dify(), bench.links()) == ({}, [])


@pytest.mark.parametrize("change", [rewrite, rename, remove, upload])
def test_ask_changes_nothing_until_somebody_decides(
    bench: Bench, placed: Document, change: Change
) -> None:
    bench.policy("ask")
    click(bench, change)
    there = bench.in_dify()
    bench.settle(look=True)
    assert bench.in_dify() == there
    (link,) = bench.links(state=SyncState.CONFLICT)
    decide(context=bench.context, remote_object_id=link.pk, decision="ours")
    bench.settle()
    assert bench.in_dify() == {"Handbook": {"a.txt": "Twenty days."}}
    with pytest.raises((Conflict, NotFound)):
        decide(context=bench.context, remote_object_id=link.pk, decision="ours")


def test_what_was_decided_holds_for_all_that_was_changed(bench: Bench, placed: Document) -> None:
    bench.policy("ask")

    def change(own: state.Workspace) -> None:
        (dataset,) = own.datasets.values()
        (document,) = dataset.documents.values()
        document.name, document.enabled, document.archived = "theirs.txt", False, True

    bench.double.click(change)
    bench.settle(look=True)
    (link,) = bench.links(state=SyncState.CONFLICT)
    decide(context=bench.context, remote_object_id=link.pk, decision="ours")
    bench.settle()
    assert bench.in_dify() == {"Handbook": {"a.txt": "Twenty days."}}
    assert faults_of(bench) == []
    (link,) = bench.links(local_id=placed.pk)
    assert (link.state, link.decision) == (SyncState.IN_STEP, "")
    # Decided once is not decided for good.
    click(bench, rewrite)
    bench.settle(look=True)
    assert [one.pk for one in bench.links(state=SyncState.CONFLICT)] == [link.pk]


def test_ask_takes_theirs_where_that_is_decided(bench: Bench, placed: Document) -> None:
    bench.policy("ask")
    click(bench, rewrite)
    bench.settle(look=True)
    (link,) = bench.links(state=SyncState.CONFLICT)
    decide(context=bench.context, remote_object_id=link.pk, decision="theirs")
    bench.settle()
    index(bench.tenant)
    bench.settle(look=True)
    assert text_now(bench, placed) == "Thirty days."
    assert bench.links(state=SyncState.CONFLICT) == []


def test_conflict_that_vanishes_is_in_step_again(bench: Bench, placed: Document) -> None:
    bench.policy("ask")

    def switch(dataset: state.Dataset, document: state.Document) -> None:
        document.enabled = not document.enabled

    click(bench, switch)
    bench.settle(look=True)
    assert len(bench.links(state=SyncState.CONFLICT)) == 1
    click(bench, switch)
    bench.settle(look=True)
    assert bench.in_step()


def test_change_of_both_sides_is_asked_about(bench: Bench, placed: Document) -> None:
    bench.policy("ask")
    click(bench, rewrite)
    bench.text(KnowledgeBase(pk=placed.knowledge_base_id), "a.txt", "Forty days.")
    bench.settle(look=True)
    assert bench.in_dify() == {"Handbook": {"a.txt": "Thirty days."}}
    with tenant_scope(bench.context):
        (step,) = steps_of(bench.connection)
    assert (step.verb, step.aspects) == (Verb.CONFLICT, frozenset({"content"}))


def test_change_of_the_other_thing_here_is_sent_meanwhile_no_more_than_there(
    bench: Bench, placed: Document
) -> None:
    click(bench, rename)
    edit_document(context=bench.context, document_id=placed.pk, enabled=False)
    bench.settle(look=True)
    assert not bench.double.document("Handbook", "a.txt").enabled


def test_drift_is_told_once(bench: Bench, placed: Document, owner_sql: psycopg.Connection) -> None:
    bench.policy("ask")
    click(bench, rewrite)
    for _ in range(3):
        bench.settle(look=True)
    found = owner_sql.execute(
        "SELECT count(*) FROM audit_event WHERE tenant_id = %s AND action = 'sync.drift'",
        [bench.tenant.id],
    )
    assert found.fetchone() == (1,)


def test_decide_is_refused_to_who_may_only_read(bench: Bench, placed: Document) -> None:
    bench.policy("ask")
    click(bench, rewrite)
    bench.settle(look=True)
    (link,) = bench.links(state=SyncState.CONFLICT)
    with pytest.raises(Forbidden):
        decide(context=bench.tenant.viewer.context, remote_object_id=link.pk, decision="ours")
