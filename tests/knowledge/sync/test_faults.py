"""What goes wrong: calls without an answer, refusals, a Dify that is away, runners that die."""

from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from knowledge.connections.services import delete_connection, edit_connection
from knowledge.models import RemoteObject, Sync, SyncState
from knowledge.services import delete_document, delete_knowledge_base
from knowledge.services.bases import edit_knowledge_base
from knowledge.sync.lease import LostLease
from knowledge.sync.names import mark_of, name_in_dify
from knowledge.sync.running import run
from knowledge.sync.selectors import queue_of
from knowledge.sync.services import set_paused, sync_now
from knowledge.sync.users import InUse
from portal.core.actors import Context
from portal.core.errors import Conflict
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.closing.deletion import work_on
from tests.factories import Organisation
from tests.knowledge.dify.double import state
from tests.knowledge.dify.double.server import Kind
from tests.knowledge.sync.bench import Bench
from tests.knowledge.sync.moves import Killed, Killing
from tests.tenants.closings import close


@pytest.mark.parametrize("path", [r"/datasets$", "create-by-text", "update-by-text", "indexing"])
@pytest.mark.parametrize(
    "kind", ["failed", "busy", "drop", "done_then_drop", "html_404", "nonsense", "bad_gateway"]
)
def test_call_that_goes_wrong_is_made_good(bench: Bench, kind: Kind, path: str) -> None:
    bench.double.fail(kind, path=path, times=2, retry_after="0")
    base = bench.base()
    bench.text(base, "a.txt", "one")
    bench.settle()
    bench.text(base, "a.txt", "two")
    bench.settle(look=True)
    assert bench.in_dify() == {"Handbook": {"a.txt": "two"}}
    assert bench.in_step()


def test_deletion_that_dify_only_says_it_made_is_made_again(bench: Bench) -> None:
    base = bench.base()
    document = bench.text(base, "a.txt")
    bench.text(base, "b.txt")
    bench.settle()
    bench.double.fail("nonsense", method="DELETE", times=1)
    delete_document(context=bench.context, document_id=document.pk)
    bench.run()
    link = bench.link(document.pk)
    assert link.error.startswith("Dify said that it deleted this, and has it still")
    assert bench.receipts() == []
    bench.settle()
    assert bench.in_dify() == {"Handbook": {"b.txt": "Twenty days."}}
    bench.double.fail("nonsense", method="DELETE", times=1)
    delete_knowledge_base(context=bench.context, knowledge_base_id=base.pk)
    bench.settle()
    assert bench.in_dify() == {}
    assert [receipt.verified_at is not None for receipt in bench.receipts()] == [True, True]


def test_indexing_that_does_not_end_is_told_and_can_be_begun_again(bench: Bench) -> None:
    bench.double.knowledge.indexing_reads = 10**6
    document = bench.text(bench.base(), "a.txt")
    bench.run()
    bench.run()
    assert bench.link(document.pk).error == ""
    with tenant_scope(bench.context):
        hours_ago = timezone.now() - timedelta(hours=2)
        RemoteObject.objects.filter(local_id=document.pk).update(waiting_since=hours_ago)
    bench.run()
    link = bench.link(document.pk)
    assert (link.state, link.error_code) == (SyncState.INDEXING, "dify_slow")
    assert "check that its worker runs" in link.error
    bench.double.knowledge.indexing_reads = 2

    def delete(own: state.Workspace) -> None:
        for dataset in own.datasets.values():
            dataset.documents.clear()

    bench.double.click(delete)
    bench.settle(look=True)
    bench.settle(look=True)
    link = bench.link(document.pk)
    assert (link.state, link.error) == (SyncState.IN_STEP, "")
    assert bench.in_dify() == {"Handbook": {"a.txt": "Twenty days."}}


@pytest.mark.parametrize("after", [False, True])
def test_runner_killed_at_any_call_leaves_nothing_twice(bench: Bench, *, after: bool) -> None:
    """Killed at the first call, the next runner at its second, and so on."""
    base = bench.base()
    bench.text(base, "a.txt", metadata={"team": "hr"})
    bench.text(base, "b.txt")
    for number in range(12):
        bench.hurry(look=number % 3 == 0)
        lease = bench.lease()
        assert lease is not None
        with Killing(number % 4, after=after), suppress(Killed):
            run(lease)
    bench.settle(look=True)
    bench.settle(look=True)
    assert bench.in_dify() == {"Handbook": {"a.txt": "Twenty days.", "b.txt": "Twenty days."}}
    assert len(bench.links()) == 3


def test_refused_document_says_why_and_others_go_on(bench: Bench) -> None:
    base = bench.base()
    bench.text(base, "a.txt")
    bench.settle()
    bad = bench.text(base, "bad.txt", metadata={"x": "1"})
    bench.text(base, "good.txt")
    bench.double.fail("denied", path="/metadata", times=-1)
    for _ in range(6):
        bench.run()
    link = bench.link(bad.pk)
    assert (link.state, link.error) == (SyncState.FAILED, "Dify denies the call.")
    assert link.attempts > 0
    assert "good.txt" in bench.in_dify()["Handbook"]
    bench.double.heal()
    bench.settle()
    assert bench.in_step()


def test_dify_that_is_away_loses_nothing(bench: Bench) -> None:
    base = bench.base()
    bench.text(base, "a.txt")
    bench.double.fail("bad_gateway", times=-1)
    bench.run()
    bench.text(base, "b.txt")
    bench.run()
    sync = bench.sync()
    assert (sync.error_code, sync.failures) == ("dify_down", 2)
    assert sync.failing_since is not None
    assert sync.due_at > timezone.now()
    with tenant_scope(bench.context):
        queue = queue_of(bench.connection)
    assert queue.waiting == 3
    assert queue.oldest is not None
    bench.double.heal()
    bench.settle()
    assert bench.in_dify() == {"Handbook": {"a.txt": "Twenty days.", "b.txt": "Twenty days."}}
    assert (bench.sync().failing_since, bench.sync().error) == (None, "")


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda double: setattr(double, "version", "1.0.0"), "dify_version_unsupported"),
        (lambda double: double.own.keys.clear(), "dify_key_refused"),
    ],
)
def test_dify_that_can_not_be_worked_with_is_said(
    bench: Bench, break_it: object, code: str
) -> None:
    bench.text(bench.base(), "a.txt")
    bench.settle()
    break_it(bench.double)  # type: ignore[operator]
    bench.run(look=True)
    assert bench.sync().error_code == code


def test_second_runner_has_the_connection_to_itself(bench: Bench) -> None:
    bench.base()
    bench.hurry()
    first = bench.lease()
    assert first is not None
    assert bench.lease() is None
    with tenant_scope(bench.context):
        Sync.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    second = bench.lease()
    assert second is not None
    with pytest.raises(LostLease):
        run(first)
    run(second)
    assert list(bench.in_dify()) == ["Handbook"]


def test_edit_during_a_run_is_not_slept_over(bench: Bench) -> None:
    base = bench.base()
    bench.settle()
    assert bench.sync().due_at > timezone.now()
    bench.text(base, "a.txt")
    assert bench.sync().due_at <= timezone.now()


def test_paused_connection_is_left_alone(bench: Bench) -> None:
    set_paused(context=bench.context, connection_id=bench.connection.pk, paused=True)
    bench.base()
    bench.hurry()
    assert bench.lease() is None
    with pytest.raises(Conflict):
        sync_now(context=bench.context, connection_id=bench.connection.pk)
    set_paused(context=bench.context, connection_id=bench.connection.pk, paused=False)
    bench.settle()
    assert list(bench.in_dify()) == ["Handbook"]


def _use(bench: Bench, name: str) -> None:
    dataset = bench.double.dataset("Handbook")
    app = state.App(name, "chat", {"app": {}, "used": {"dataset_ids": [dataset.id]}})
    bench.double.own.apps[app.id] = app


def test_delete_of_what_an_app_in_dify_uses_is_refused_by_name(bench: Bench) -> None:
    base = bench.base()
    bench.settle()
    _use(bench, "Helpdesk")
    with pytest.raises(InUse, match="Helpdesk"):
        delete_knowledge_base(context=bench.context, knowledge_base_id=base.pk)
    with pytest.raises(InUse, match="Helpdesk"):
        edit_knowledge_base(context=bench.context, knowledge_base_id=base.pk, connection_id=None)
    bench.double.own.apps.clear()
    delete_knowledge_base(context=bench.context, knowledge_base_id=base.pk)
    bench.settle()
    assert bench.in_dify() == {}


def test_app_that_came_meanwhile_holds_the_deletion_up(bench: Bench) -> None:
    base = bench.base()
    bench.settle()
    delete_knowledge_base(context=bench.context, knowledge_base_id=base.pk)
    _use(bench, "Helpdesk")
    bench.run()
    (link,) = bench.links()
    assert "Helpdesk" in link.error
    assert list(bench.in_dify()) == ["Handbook"]
    bench.double.own.apps.clear()
    bench.settle()
    assert bench.in_dify() == {}


def test_moved_off_knowledge_base_is_deleted_there(bench: Bench) -> None:
    base = bench.base()
    bench.text(base, "a.txt")
    bench.settle()
    edit_knowledge_base(context=bench.context, knowledge_base_id=base.pk, connection_id=None)
    bench.settle()
    assert (bench.in_dify(), bench.links()) == ({}, [])


def test_delete_connection_asks_what_stands_there(bench: Bench) -> None:
    base = bench.base()
    bench.settle()

    def delete(*, forget: bool = False) -> None:
        delete_connection(context=bench.context, connection_id=bench.connection.pk, forget=forget)

    with pytest.raises(Conflict, match="Handbook"):
        delete(forget=True)
    with pytest.raises(Conflict, match="workspace"):
        edit_connection(
            context=bench.context,
            connection_id=bench.connection.pk,
            workspace_id=UUID(bench.double.other.id),
        )
    edit_knowledge_base(context=bench.context, knowledge_base_id=base.pk, connection_id=None)
    with pytest.raises(Conflict, match="still being deleted"):
        delete()
    delete(forget=True)
    assert list(bench.in_dify()) == ["Handbook"]


def test_close_tenant_empties_dify_first(
    bench: Bench, tenant_a: Organisation, system_admin: Context
) -> None:
    bench.text(bench.base(), "a.txt")
    bench.settle()
    _use(bench, "Helpdesk")
    bench.double.fail("bad_gateway", times=2)
    close(tenant_a, system_admin)
    assert not work_on(tenant_a.id)
    assert list(bench.in_dify()) == ["Handbook"]
    bench.double.heal()
    work_on(tenant_a.id, seconds=60)
    assert bench.in_dify() == {}


def test_names_fit_and_stay_apart_in_a_shared_workspace(bench: Bench) -> None:
    bench.connection.organisation = "Example"
    first, second = uuid7(), uuid7()
    long = "Handbook of the maintenance department x"
    names = {
        name_in_dify(bench.connection, slug, long, pk)
        for slug in ("tenant-with-a-long-name-a", "tenant-with-a-long-name-b")
        for pk in (first, second)
    }
    assert len(names) == 4
    assert max(map(len, names)) <= 40
    assert len(mark_of(first)) <= 40
    assert name_in_dify(bench.connection, "acme", "HR", first) == "acme/HR"


def test_foreigner_of_the_same_name_is_left_alone(bench: Bench) -> None:
    foreign = state.Dataset("Handbook", "", "only_me", "economy")
    bench.double.click(lambda own: own.datasets.update({foreign.id: foreign}))
    base = bench.base()
    bench.text(base, "a.txt")
    for _ in range(8):
        bench.run(look=True)
    link = bench.link(base.pk)
    assert (link.state, link.error_code) == (SyncState.FAILED, "dify_name_taken")
    assert foreign.documents == {}
    edit_knowledge_base(context=bench.context, knowledge_base_id=base.pk, name="Manual")
    bench.settle()
    assert set(bench.in_dify()) == {"Handbook", "Manual"}
