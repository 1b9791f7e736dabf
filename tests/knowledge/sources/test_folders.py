"""A watched folder: what becomes of its files, and what nobody gets out of it."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from knowledge.models import DocumentSource, KnowledgeBase, RunState
from knowledge.services import add_text, delete_document, delete_knowledge_base
from knowledge.sources import folders, runs
from knowledge.sources.folders import FolderReader
from knowledge.sources.reading import Batch, SourceFault
from knowledge.sources.runs import run_source
from knowledge.sources.services import (
    create_source,
    delete_source,
    edit_source,
    start_run,
    try_source,
)
from knowledge.sources.tasks import run_due
from portal.core.env import env
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from tests.factories import Organisation
from tests.knowledge import files
from tests.knowledge.sources.support import (
    claim,
    counts,
    documents,
    done,
    last_run,
    make_base,
    refused,
    run,
    source_now,
)

HOUR = 3600


@pytest.fixture
def root(tmp_path: Path, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the operator gave to the first tenant, and to no other."""
    given = tmp_path / "given"
    given.mkdir()
    allowed = f"{tenant_a.tenant.slug}={given}"
    known = env().model_copy(update={"source_folders": allowed})
    monkeypatch.setattr("knowledge.sources.settings.env", lambda: known)
    return given


@pytest.fixture
def base(tenant_a: Organisation) -> KnowledgeBase:
    return make_base(tenant_a)


def write(path: Path, content: bytes | str, *, age: float = HOUR) -> Path:
    """A file that was changed so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def watch(tenant: Organisation, base: KnowledgeBase, path: str = "", **more: str) -> DocumentSource:
    settings = {"path": path, "include": more.pop("include", "")}
    return create_source(
        context=tenant.context,
        knowledge_base_id=base.pk,
        name="folder",
        kind="folder",
        settings=settings,
        **more,
    )


def test_files_become_documents_and_follow_what_happens_to_them(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "rules.txt", "Lunch is at noon.")
    write(root / "工厂" / "pumps.docx", files.docx("Pump 3 vibrates."))
    source = watch(tenant_a, base)
    assert done(run(tenant_a, source)) == {"added": 2}
    found = documents(tenant_a, base)
    assert {n: d.metadata for n, d in found.items()} == {
        "rules.txt": {"path": "rules.txt"},
        "工厂/pumps.docx": {"path": "工厂/pumps.docx", "folder": "工厂"},
    }
    assert done(run(tenant_a, source)) == {"unchanged": 2}
    write(root / "rules.txt", "Lunch is at one.", age=HOUR / 2)
    (root / "工厂" / "pumps.docx").unlink()
    assert done(run(tenant_a, source)) == {"changed": 1, "removed": 1}
    found = documents(tenant_a, base)
    assert {n: d.latest for n, d in found.items()} == {"rules.txt": 2}
    # Touched, and the same inside.
    write(root / "rules.txt", "Lunch is at one.", age=HOUR / 3)
    assert done(run(tenant_a, source)) == {"unchanged": 1}
    assert documents(tenant_a, base)["rules.txt"].latest == 2


def test_bad_files_are_refused_with_their_reasons_and_the_others_go_on(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "good.txt", "Lunch is at noon.")
    write(root / "bomb.docx", files.bomb())
    write(root / "photo.jpg", b"\xff\xd8")
    write(root / "scan.pdf", files.pdf())
    with write(root / "large.txt", "x").open("ab") as large:
        large.truncate(16 * 1024 * 1024)
    os.utime(root / "large.txt", (0, 0))
    write(root / ("n" * 195) / "name.txt", "Too long a path.")
    source = watch(tenant_a, base)
    assert done(run(tenant_a, source)) == {"added": 1, "refused": 5}
    why = refused(tenant_a, source)
    assert "unpacks" in why["bomb.docx"]
    assert "type" in why["photo.jpg"]
    assert "OCR" in why["scan.pdf"]
    assert "larger than 15 MB" in why["large.txt"]
    assert "rename" in why[f"{'n' * 195}/name.txt"]
    # They are not read again, and still told.
    assert done(run(tenant_a, source)) == {"unchanged": 1, "refused": 5}
    write(root / "scan.pdf", files.pdf("Now with text"), age=HOUR / 2)
    assert done(run(tenant_a, source)) == {"added": 1, "unchanged": 1, "refused": 4}


def test_file_of_fourteen_megabytes_is_taken(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "long.txt", "word " * (14 * 1024 * 1024 // 5))
    assert done(run(tenant_a, watch(tenant_a, base))) == {"added": 1}


def test_changed_file_that_is_refused_leaves_its_document_as_it_was(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    run(tenant_a, source)
    write(root / "a.txt", "", age=HOUR / 2)
    assert done(run(tenant_a, source)) == {"refused": 1}
    assert documents(tenant_a, base)["a.txt"].latest == 1
    assert "empty" in refused(tenant_a, source)["a.txt"]


def test_file_that_is_still_written_is_left_for_the_next_look(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "old.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    run(tenant_a, source)
    write(root / "new.txt", "Lun", age=0)
    write(root / "old.txt", "Lunch is", age=0)
    assert done(run(tenant_a, source)) == {"waiting": 2}
    # Nothing was removed because of it.
    assert list(documents(tenant_a, base)) == ["old.txt"]
    write(root / "new.txt", "Lunch is at one.")
    write(root / "old.txt", "Lunch is at two.", age=HOUR / 2)
    assert done(run(tenant_a, source)) == {"added": 1, "changed": 1}


def test_file_that_changes_while_it_is_read_is_left_for_the_next_look(
    tenant_a: Organisation,
    base: KnowledgeBase,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    listed = folders._walk

    def grow(*arguments: object) -> object:
        found = list(listed(*arguments))  # type: ignore[arg-type]
        write(path, "Lunch is at noon. Dinner")
        return iter(found)

    monkeypatch.setattr(folders, "_walk", grow)
    assert done(run(tenant_a, source)) == {"waiting": 1}
    assert documents(tenant_a, base) == {}


def test_links_hidden_files_and_pipes_lead_nowhere(
    tenant_a: Organisation, base: KnowledgeBase, root: Path, tmp_path: Path
) -> None:
    secret = write(tmp_path / "secret" / "keys.txt", "sk-secret")
    (root / "link.txt").symlink_to(secret)
    (root / "linked").symlink_to(secret.parent)
    os.mkfifo(root / "pipe.txt")
    for name in (".hidden.txt", "~$rules.docx", "half.txt.part", ".git/config.txt"):
        write(root / name, "no document")
    write(root / "good.txt", "Lunch is at noon.")
    assert done(run(tenant_a, watch(tenant_a, base))) == {"added": 1}
    assert list(documents(tenant_a, base)) == ["good.txt"]


def test_file_that_becomes_a_link_before_it_is_read_is_not_followed(
    tenant_a: Organisation,
    base: KnowledgeBase,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = write(tmp_path / "secret" / "keys.txt", "sk-secret")
    write(root / "inner" / "keys.txt", "sk-secret")
    source = watch(tenant_a, base)
    listed = folders._walk

    def exchange(*arguments: object) -> object:
        found = list(listed(*arguments))  # type: ignore[arg-type]
        if (root / "inner").is_dir() and not (root / "inner").is_symlink():
            (root / "inner" / "keys.txt").unlink()
            (root / "inner").rmdir()
            (root / "inner").symlink_to(secret.parent)
        return iter(found)

    monkeypatch.setattr(folders, "_walk", exchange)
    assert done(run(tenant_a, source)) == {"refused": 1}
    assert documents(tenant_a, base) == {}


@pytest.mark.parametrize("path", ["..", "a/../../secret", "/../secret"])
def test_path_that_leads_upwards_is_refused(
    tenant_a: Organisation, base: KnowledgeBase, root: Path, path: str
) -> None:
    with pytest.raises(Invalid, match="downwards"):
        watch(tenant_a, base, path)


def test_folder_that_is_a_link_is_refused(
    tenant_a: Organisation, base: KnowledgeBase, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    (root / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceFault, match="link"):
        watch(tenant_a, base, "out")


def test_tenant_without_a_root_may_watch_nothing(tenant_b: Organisation, root: Path) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    with pytest.raises(Invalid, match="SOURCE_FOLDERS"):
        watch(tenant_b, make_base(tenant_b))


def test_folder_that_is_missing_is_told_and_nothing_is_saved(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    with pytest.raises(SourceFault, match="There is no such folder"):
        watch(tenant_a, base, "nowhere")
    (root / "nowhere").mkdir()
    # Its name is free still.
    watch(tenant_a, base, "nowhere")


def test_patterns_choose_files(tenant_a: Organisation, base: KnowledgeBase, root: Path) -> None:
    for name in ("a.txt", "b.md", "reports/c.txt", "reports/d.md"):
        write(root / name, "Lunch is at noon.")
    source = watch(tenant_a, base, include="*.md, reports/*.txt")
    assert done(run(tenant_a, source)) == {"added": 3}
    assert sorted(documents(tenant_a, base)) == ["b.md", "reports/c.txt", "reports/d.md"]
    # Other settings: what is not chosen any more goes.
    edit_source(
        context=tenant_a.context, source_id=source.pk, settings={"path": "", "include": "a.*"}
    )
    assert done(run(tenant_a, source)) == {"added": 1, "removed": 3}


@pytest.mark.parametrize(("on_removed", "archived"), [("archive", True), ("keep", False)])
def test_removed_file_keeps_its_document_where_that_was_chosen(
    tenant_a: Organisation, base: KnowledgeBase, root: Path, on_removed: str, archived: bool
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    write(root / "b.txt", "Dinner is at six.")
    source = watch(tenant_a, base, on_removed=on_removed)
    run(tenant_a, source)
    (root / "a.txt").unlink()
    assert done(run(tenant_a, source)) == {"unchanged": 1, "removed": 1}
    assert (documents(tenant_a, base)["a.txt"].archived_at is not None) is archived
    assert done(run(tenant_a, source)) == {"unchanged": 1}
    # It comes back, and is the same document.
    write(root / "a.txt", "Lunch is at noon.")
    assert done(run(tenant_a, source)) == {"unchanged": 2}
    assert documents(tenant_a, base)["a.txt"].archived_at is None


def test_folder_that_is_suddenly_empty_removes_nothing_unless_that_is_meant(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    path = write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    run(tenant_a, source)
    path.unlink()
    failed = run(tenant_a, source)
    assert failed.state == RunState.FAILED
    assert "none was removed" in failed.error
    assert list(documents(tenant_a, base)) == ["a.txt"]
    start_run(context=tenant_a.context, source_id=source.pk, empty_allowed=True)
    assert done(run(tenant_a, source)) == {"removed": 1}
    assert documents(tenant_a, base) == {}


def test_folder_that_goes_away_is_a_problem_until_it_is_back(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "in" / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base, "in")
    run(tenant_a, source)
    (root / "in").rename(root / "away")
    assert run(tenant_a, source).state == RunState.FAILED
    assert "no such folder" in source_now(tenant_a, source).problem
    assert list(documents(tenant_a, base)) == ["a.txt"]
    (root / "away").rename(root / "in")
    assert done(run(tenant_a, source)) == {"unchanged": 1}
    assert source_now(tenant_a, source).problem == ""


def test_document_of_another_hand_is_not_overwritten_in_either_direction(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    def add(name: str) -> None:
        add_text(context=tenant_a.context, knowledge_base_id=base.pk, name=name, text="By hand.")

    add("a.txt")
    write(root / "a.txt", "Lunch is at noon.")
    write(root / "b.txt", "Dinner is at six.")
    source = watch(tenant_a, base)
    assert done(run(tenant_a, source)) == {"added": 1, "refused": 1}
    assert "does not come from this source" in refused(tenant_a, source)["a.txt"]
    with pytest.raises(Conflict, match="read out of a source"):
        add("b.txt")
    # Out of the way, it is taken at the next look though the file is the same.
    delete_document(context=tenant_a.context, document_id=documents(tenant_a, base)["a.txt"].pk)
    assert done(run(tenant_a, source)) == {"added": 1, "unchanged": 1}


def test_document_that_was_deleted_by_hand_comes_back(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    run(tenant_a, source)
    delete_document(context=tenant_a.context, document_id=documents(tenant_a, base)["a.txt"].pk)
    assert done(run(tenant_a, source)) == {"added": 1}


@pytest.mark.parametrize("keep", [True, False])
def test_deleting_a_source_keeps_or_deletes_its_documents(
    tenant_a: Organisation, base: KnowledgeBase, root: Path, keep: bool
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    source = watch(tenant_a, base)
    run(tenant_a, source)
    delete_source(context=tenant_a.context, source_id=source.pk, keep_documents=keep)
    assert list(documents(tenant_a, base)) == (["a.txt"] if keep else [])
    if keep:
        # It is like any other now.
        add_text(context=tenant_a.context, knowledge_base_id=base.pk, name="a.txt", text="By hand.")


def test_a_test_shows_the_first_files_and_keeps_nothing(
    tenant_a: Organisation, base: KnowledgeBase, root: Path
) -> None:
    write(root / "a.txt", "Lunch is at noon.")
    write(root / "b.jpg", b"\xff\xd8")
    source = watch(tenant_a, base)
    seen = try_source(context=tenant_a.context, source_id=source.pk)
    assert [(s.name, bool(s.problem)) for s in seen] == [("a.txt", False), ("b.jpg", True)]
    assert documents(tenant_a, base) == {}


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
