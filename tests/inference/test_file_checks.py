"""Files of a version are verified from its page and by the API: read by an io worker."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.test import Client

from inference.artefacts import FileEntry, import_model
from inference.artefacts import manifest as manifests
from inference.file_checks import FileChecks
from inference.models import CheckState, ModelCheck, ModelVersion
from inference.services import register_model_version
from inference.verification import ask_for_check
from portal.core.actors import PlatformRole
from portal.core.errors import Conflict, Forbidden, NotFound
from portal.core.ids import uuid7
from tests import factories
from tests.api.callers import Caller, session_caller
from tests.factories import TESTS, Organisation, unique
from tests.inference.model_folders import write_folder
from tests.servers import SessionServers
from tests.waiting import eventually

Verify = Any


@pytest.fixture
def version(database: None, tmp_path: Path) -> ModelVersion:
    name = unique("checked")
    folder = write_folder(tmp_path / "source")
    (folder / "NOTICE").write_text(name)
    store = tmp_path / "store"
    manifest = import_model(folder, store, name=name, provenance="the vault")
    return register_model_version(
        context=TESTS, name=name, label="1", manifest=manifest, path=store / manifest.id
    )


@pytest.fixture
def checks(servers: SessionServers) -> Iterator[FileChecks]:
    made = FileChecks(servers.url("gateway"))
    yield made
    made.wait(30)


@pytest.fixture
def system(database: None) -> Caller:
    return session_caller(factories.administrator(PlatformRole.SYSTEM).user)


def check_of(version: ModelVersion) -> ModelCheck:
    return ModelCheck.objects.get(pk=version.pk)


def ended(checks: FileChecks, version: ModelVersion) -> ModelCheck:
    """The check once it has ended, here or in a worker of a running portal."""

    def over() -> bool:
        checks.begin()
        checks.wait(30)
        return check_of(version).ended_at is not None

    eventually(over, within=30, what="the files are read")
    return check_of(version)


def verified(checks: FileChecks, version: ModelVersion) -> ModelCheck:
    ask_for_check(context=TESTS, version_id=version.pk)
    return ended(checks, version)


def replaced(version: ModelVersion, name: str, content: bytes) -> None:
    """Another content in the place of a file; the source that it is linked to stays."""
    path = Path(version.path) / name
    path.unlink()
    path.write_bytes(content)


def events(owner_sql: psycopg.Connection, version: ModelVersion) -> list[tuple[str, str, str]]:
    return owner_sql.execute(
        "SELECT action, outcome, reason FROM audit_event WHERE object_id = %s "
        "AND action LIKE 'model.%%verify' ORDER BY recorded_at, id",
        [str(version.id)],
    ).fetchall()


def test_verify_untouched_files_finds_them_as_registered(
    checks: FileChecks, version: ModelVersion, owner_sql: psycopg.Connection
) -> None:
    check = verified(checks, version)
    assert (check.state, check.faults, check.detail) == (CheckState.GOOD, [], "")
    size = sum(file["size"] for file in (version.files or {}).values())
    assert (check.read_bytes, check.total_bytes, check.percent) == (size, size, 100)
    assert [(action, outcome) for action, outcome, _ in events(owner_sql, version)] == [
        ("model.ask_verify", "success"),
        ("model.verify", "success"),
    ]


def test_verify_names_every_file_that_is_not_as_registered(
    checks: FileChecks, version: ModelVersion, owner_sql: psycopg.Connection
) -> None:
    folder = Path(version.path)
    replaced(version, "config.json", b"{}")
    (folder / "NOTICE").unlink()
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "more").mkdir()
    (folder / "more" / "weights.safetensors").write_bytes(b"")
    check = verified(checks, version)
    assert check.state == CheckState.BAD
    assert check.faults == [
        {"name": "NOTICE", "fault": "missing"},
        {"name": "config.json", "fault": "corrupt"},
        {"name": "modeling.py", "fault": "extra"},
        {"name": "more/weights.safetensors", "fault": "extra"},
    ]
    action, outcome, reason = events(owner_sql, version)[-1]
    assert (action, outcome) == ("model.verify", "failure")
    assert "config.json is corrupt" in reason
    # Mended, and asked for again.
    (folder / "modeling.py").unlink()
    assert len(verified(checks, version).faults) == 3


def test_verify_an_artefact_that_was_exchanged_says_so(
    checks: FileChecks, version: ModelVersion, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "other")
    other = import_model(folder, tmp_path / "others", name="other", provenance="elsewhere")
    Path(version.path).rename(tmp_path / "gone")
    (tmp_path / "others" / other.id).rename(version.path)
    check = verified(checks, version)
    assert (check.state, check.faults) == (CheckState.BAD, [])
    assert "is not the one that was registered" in check.detail


def test_verify_waits_for_an_io_worker_that_has_the_folder(
    checks: FileChecks, version: ModelVersion, owner_sql: psycopg.Connection, tmp_path: Path
) -> None:
    Path(version.path).rename(tmp_path / "elsewhere")
    ask_for_check(context=TESTS, version_id=version.pk)
    checks.begin()
    checks.wait(30)
    assert check_of(version).state == CheckState.WAITING
    owner_sql.execute(
        "UPDATE inference_modelcheck SET asked_at = asked_at - interval '2 minutes' "
        "WHERE version_id = %s",
        [version.pk],
    )
    check = ended(checks, version)
    assert check.state == CheckState.BAD
    assert "There is no model artefact in" in check.detail


def test_check_tells_how_far_it_is_and_is_held_by_who_runs_it(
    checks: FileChecks,
    servers: SessionServers,
    version: ModelVersion,
    owner_sql: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was thought dead ends nothing that another has taken over."""
    go_on, entry = threading.Event(), manifests.file_entry
    read: list[str] = []

    def slowly(path: Path, progress: Any = None) -> FileEntry:
        if progress is not None and threading.current_thread().name == "file-check":
            read.append(path.name)
            if len(read) == 3:
                go_on.wait(30)
        return entry(path, progress)

    monkeypatch.setattr(manifests, "file_entry", slowly)
    monkeypatch.setattr("inference.file_checks._TELL_SECONDS", 0)
    ask_for_check(context=TESTS, version_id=version.pk)
    assert checks.begin()
    eventually(lambda: len(read) == 3, what="two files are read")
    check = check_of(version)
    assert (check.state, check.file) == (CheckState.RUNNING, read[1])
    assert 0 < check.read_bytes < check.total_bytes
    assert not checks.begin()
    with pytest.raises(Conflict):
        ask_for_check(context=TESTS, version_id=version.pk)
    owner_sql.execute(
        "UPDATE inference_modelcheck SET lease_until = now() - interval '1 second' "
        "WHERE version_id = %s",
        [version.pk],
    )
    another = FileChecks(servers.url("gateway"))
    assert another.begin()
    another.wait(30)
    good = check_of(version)
    assert good.state == CheckState.GOOD
    replaced(version, read[2], b"{}")
    go_on.set()
    checks.wait(30)
    assert check_of(version).ended_at == good.ended_at
    assert check_of(version).state == CheckState.GOOD


def test_check_is_the_platforms_to_ask_for(tenant_a: Organisation, version: ModelVersion) -> None:
    with pytest.raises(Forbidden):
        ask_for_check(context=tenant_a.owner.context, version_id=version.pk)
    with pytest.raises(NotFound):
        ask_for_check(context=TESTS, version_id=uuid7())


def test_api_asks_for_a_check_and_tells_its_result(
    system: Caller, checks: FileChecks, version: ModelVersion
) -> None:
    path = f"model-versions/{version.pk}/check"
    assert system.get(path).status_code == 404
    asked = system.post(path, {})
    assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
    (Path(version.path) / "README.md").unlink()
    ended(checks, version)
    told = system.get(path).json()
    assert (told["state"], told["faults"]) == ("bad", [{"name": "README.md", "fault": "missing"}])
    assert system.post(path, {}).status_code == 202


def test_page_asks_for_a_check_and_tells_its_result_in_both_languages(
    checks: FileChecks, version: ModelVersion
) -> None:
    client = Client()
    client.force_login(factories.administrator(PlatformRole.SYSTEM).user)
    page = f"/admin/inference/modelversion/{version.pk}/"

    def shown(part: str = "", language: str = "en") -> str:
        response = client.get(page + part, headers={"accept-language": language})
        assert response.status_code == 200
        return response.content.decode()

    assert "Verify files" in shown()
    assert "校验文件" in shown(language="zh-hans")
    assert shown("live/").strip() == ""
    assert "takes minutes" in shown("verify/")
    asked = client.post(f"{page}verify/", {}, follow=True)
    assert "The files are going to be read" in asked.content.decode()
    (Path(version.path) / "README.md").unlink()
    ended(checks, version)
    assert "<code>README.md</code> missing" in shown("live/")
    assert "<code>README.md</code> 缺失" in shown("live/", "zh-hans")
    assert f'data-live="{page}live/"' in shown()
