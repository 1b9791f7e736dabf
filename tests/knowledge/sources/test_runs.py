"""Runs of sources: what is left when one is killed, two at once, and when they are due."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from knowledge.models import DocumentSource, KnowledgeBase, RunState
from knowledge.services import delete_knowledge_base
from knowledge.sources import folders, runs
from knowledge.sources.folders import FolderReader
from knowledge.sources.reading import Batch
from knowledge.sources.runs import run_source
from knowledge.sources.services import (
    delete_source,
    edit_source,
    start_run,
    try_source,
)
from knowledge.sources.tasks import run_due
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, NotFound
from tests.factories import Organisation
from tests.knowledge.sources.support import (
    claim,
    counts,
    documents,
    done,
    last_run,
    run,
    source_now,
    watch,
    write,
)

# -- crashes, and two at once ------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: str, count: int) -> Callable[[], None]:
    """Ends the process before the ``count``-th call of a step; returns what lets it live."""
    real = getattr(runs, step)
    calls = 0

    def step_or_die(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == count:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(runs, step, step_or_die)
    return lambda: monkeypatch.setattr(runs, step, real)


@pytest.mark.parametrize(
    ("step", "count"),
    [("_incoming", 3), ("_keep", 4), ("_held", 2), ("_held", 5), ("_take", 2), ("end_run", 1)],
)
def test_run_that_is_killed_is_followed_by_one_that_doubles_nothing(
    tenant_a: Organisation,
    base: KnowledgeBase,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    count: int,
) -> None:
    monkeypatch.setattr(folders, "BATCH", 3)
    for number in range(7):
        write(root / f"{number}.txt", f"Line {number}.")
    write(root / "7.jpg", b"\xff\xd8")
    source = watch(tenant_a, base)
    live = kill_at(monkeypatch, step, count)
    with pytest.raises(Killed):
        run(tenant_a, source)
    live()
    first = last_run(tenant_a, source)
    again = run(tenant_a, source)
    assert again.pk == first.pk
    assert done(again) == {"added": 7, "refused": 1}
    assert {d.latest for d in documents(tenant_a, base).values()} == {1}


def test_run_goes_on_behind_the_batch_that_was_noted(
    tenant_a: Organisation,
    base: KnowledgeBase,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folders, "BATCH", 2)
    for name in ("a", "b/a", "b-", "b/b", "c"):
        write(root / f"{name}.txt", f"Line {name}.")
    source = watch(tenant_a, base)
    live = kill_at(monkeypatch, "_take", 2)
    with pytest.raises(Killed):
        run(tenant_a, source)
    live()
    looked: list[str] = []
    real = FolderReader.batches

    def batches(self: FolderReader, position: object) -> object:
        for batch in real(self, position):
            assert isinstance(batch, Batch)
            looked.extend(entry.key for entry in batch.entries)
            yield batch

    monkeypatch.setattr(FolderReader, "batches", batches)
    assert done(run(tenant_a, source)) == {"added": 5}
    assert len(looked) == 3


def test_run_that_breaks_off_again_and_again_is_given_up(
    tenant_a: Organisation,
    base: KnowledgeBase,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    for _ in range(runs.MOST_ATTEMPTS):
        live = kill_at(monkeypatch, "_incoming", 1)
        with pytest.raises(Killed):
            run(tenant_a, source)
        live()
    given_up = run(tenant_a, source)
    assert (given_up.state, "broke off" in given_up.error) == (RunState.FAILED, True)
    assert done(run(tenant_a, source)) == {"added": 1}


def test_only_who_holds_the_claim_writes(
    tenant_a: Organisation, base: KnowledgeBase, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    fence = claim(tenant_a, source.pk)
    real = runs._incoming

    def overtaken(*arguments: object) -> object:
        monkeypatch.setattr(runs, "_incoming", real)
        assert done(run(tenant_a, source)) == {"added": 1}
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runs, "_incoming", overtaken)
    run_source(tenant_a.id, source.pk, fence)
    assert done(last_run(tenant_a, source)) == {"added": 1}
    assert documents(tenant_a, base)["a.txt"].latest == 1


@pytest.mark.parametrize("what", ["pause", "edit", "delete", "delete base"])
def test_run_ends_when_its_source_is_changed_under_it(
    tenant_a: Organisation,
    base: KnowledgeBase,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    for name in ("a.txt", "b.txt"):
        write(root / name, "Lunch is at noon.")
    source = watch(tenant_a, base)
    real = runs._keep

    def change(*arguments: object) -> None:
        monkeypatch.setattr(runs, "_keep", real)
        real(*arguments)  # type: ignore[arg-type]
        act(tenant_a, source, base, what)

    monkeypatch.setattr(runs, "_keep", change)
    run_source(tenant_a.id, source.pk, claim(tenant_a, source.pk))
    if what == "delete base":
        return
    assert list(documents(tenant_a, base)) == ["a.txt"]
    if what != "delete":
        stopped = last_run(tenant_a, source)
        assert (stopped.state, counts(stopped)) == (RunState.STOPPED, {"added": 1})


def act(tenant: Organisation, source: DocumentSource, base: KnowledgeBase, what: str) -> None:
    if what == "pause":
        edit_source(context=tenant.context, source_id=source.pk, paused=True)
    elif what == "edit":
        changed = {"path": "", "include": "*.txt"}
        edit_source(context=tenant.context, source_id=source.pk, settings=changed)
    elif what == "delete":
        delete_source(context=tenant.context, source_id=source.pk, keep_documents=True)
    else:
        delete_knowledge_base(context=tenant.context, knowledge_base_id=base.pk)


# -- when it runs ------------------------------------------------------------------------------


def test_due_sources_are_claimed_and_run_and_the_next_run_is_put_down(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base, schedule="15")
    assert run_due(env().database_url("gateway")) >= 1
    now = source_now(tenant_a, source)
    assert done(last_run(tenant_a, source)) == {"added": 1}
    assert now.last_run_at is not None
    assert now.wake_at is not None
    assert (now.wake_at - now.last_run_at).total_seconds() == 15 * 60
    ran = last_run(tenant_a, source).pk
    run_due(env().database_url("gateway"))
    assert last_run(tenant_a, source).pk == ran


def test_paused_source_does_not_run_until_it_is_resumed(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base, schedule="15")
    edit_source(context=tenant_a.context, source_id=source.pk, paused=True)
    run_due(env().database_url("gateway"))
    assert documents(tenant_a, base) == {}
    with pytest.raises(Conflict, match="resume"):
        start_run(context=tenant_a.context, source_id=source.pk)
    edit_source(context=tenant_a.context, source_id=source.pk, paused=False)
    start_run(context=tenant_a.context, source_id=source.pk)
    run_due(env().database_url("gateway"))
    assert list(documents(tenant_a, base)) == ["a.txt"]


def test_only_who_may_edit_knowledge_may_touch_sources(
    tenant_a: Organisation, tenant_b: Organisation, base: KnowledgeBase, root: Path
) -> None:
    source = watch(tenant_a, base)
    with pytest.raises(Forbidden):
        edit_source(context=tenant_a.viewer.context, source_id=source.pk, paused=True)
    for verb in (start_run, try_source, edit_source):
        with pytest.raises(NotFound):
            verb(context=tenant_b.context, source_id=source.pk)
    with pytest.raises(NotFound):
        no_such(tenant_b, source.pk)


def no_such(tenant: Organisation, source_id: UUID) -> None:
    delete_source(context=tenant.context, source_id=source_id, keep_documents=False)
