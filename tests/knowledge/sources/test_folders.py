"""A watched folder: what becomes of its files, and what nobody gets out of it."""

import os
from pathlib import Path

import pytest

from knowledge.models import KnowledgeBase, RunState
from knowledge.services import add_text, delete_document
from knowledge.sources import folders
from knowledge.sources.reading import SourceFault
from knowledge.sources.services import (
    delete_source,
    edit_source,
    start_run,
    try_source,
)
from portal.core.errors import Conflict, Invalid
from tests.factories import Organisation
from tests.knowledge import files
from tests.knowledge.sources.support import (
    HOUR,
    documents,
    done,
    make_base,
    refused,
    run,
    source_now,
    watch,
    write,
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
