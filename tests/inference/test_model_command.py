"""``manage.py model``: a model is brought in, checked and listed, and the trail says so."""

import io
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from django.core.management import CommandError, call_command

from inference.models import ModelVersion
from inference.verification import verify_model_version
from portal.core.errors import Forbidden, NotFound
from portal.core.ids import uuid7
from tests.factories import TESTS, Organisation
from tests.inference.mirror import COMMIT, REPOSITORY, running_mirror
from tests.inference.model_folders import write_folder


@pytest.fixture
def name(database: None) -> str:
    return f"m-{uuid4().hex[:8]}"


@pytest.fixture
def source(tmp_path: Path, name: str) -> Path:
    folder = write_folder(tmp_path / "source")
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n{name}")
    return folder


def run(*words: str) -> str:
    said = io.StringIO()
    call_command("model", *words, stdout=said, stderr=said)
    return said.getvalue()


def version_of(name: str) -> ModelVersion:
    return ModelVersion.objects.select_related("model").get(model__name=name)


def outcomes(owner_sql: psycopg.Connection, version: ModelVersion, action: str) -> list[str]:
    rows = owner_sql.execute(
        "SELECT outcome FROM audit_event WHERE action = %s AND object_id = %s ORDER BY occurred_at",
        [action, str(version.id)],
    )
    return [row[0] for row in rows]


def test_import_registers_a_version_with_its_files(
    source: Path, name: str, owner_sql: psycopg.Connection
) -> None:
    said = run("import", str(source), "--name", name, "--label", "1", "--title", "Tiny")
    version = version_of(name)
    assert (version.label, version.format, version.licence) == ("1", "safetensors", "mit")
    assert (version.model.title, version.provenance) == ("Tiny", str(source))
    assert version.files is not None
    assert set(version.files["config.json"]) == {"sha256", "size"}
    assert f"{name}@1" in said
    assert version.digest in said
    assert outcomes(owner_sql, version, "model.register_version") == ["success"]
    listed = next(line for line in run("list").splitlines() if line.startswith(f"{name}@1 "))
    assert "safetensors  BF16" in listed
    assert str(version.path) in listed
    assert run("import", str(source), "--name", name, "--label", "1") == said


def test_import_another_artefact_under_the_same_label_is_refused(source: Path, name: str) -> None:
    run("import", str(source), "--name", name, "--label", "1")
    (source / "README.md").write_text(f"---\nlicense: mit\n---\nother {name}")
    with pytest.raises(CommandError, match="is another artefact"):
        run("import", str(source), "--name", name, "--label", "1")


def test_import_without_licence_says_what_to_give(source: Path, name: str) -> None:
    (source / "README.md").unlink()
    with pytest.raises(CommandError, match="does not say its licence"):
        run("import", str(source), "--name", name, "--label", "1")
    run("import", str(source), "--name", name, "--label", "1", "--licence", f"L-{name}")
    assert version_of(name).licence == f"L-{name}"


def test_import_with_a_chat_template_uses_it(source: Path, name: str, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}")
    words = ("import", str(source), "--name", name, "--label", "1", "--chat-template")
    with pytest.raises(CommandError, match="can't be read"):
        run(*words, str(tmp_path / "no.jinja"))
    run(*words, str(template))
    folder = Path(version_of(name).path)
    assert (folder / "chat_template.jinja").read_text() == template.read_text()


def test_import_from_a_mirror_registers_the_commit_and_leaves_no_download(
    source: Path, name: str
) -> None:
    with running_mirror(source) as mirror:
        words = ("--name", name, "--label", "1", "--mirror", mirror.url)
        run("import", f"{REPOSITORY}@main", *words)
        version = version_of(name)
        assert version.provenance == f"{mirror.url}/{REPOSITORY}@{COMMIT}"
    downloads = Path(version.path).parent / ".downloads"
    assert list(downloads.iterdir()) == []


def test_verify_finds_what_changed_and_records_it(
    source: Path, name: str, owner_sql: psycopg.Connection
) -> None:
    run("import", str(source), "--name", name, "--label", "1")
    version = version_of(name)
    assert run("verify", f"{name}@1") == f"ok     {name}@1\n"
    config = Path(version.path) / "config.json"
    content = config.read_bytes()
    config.unlink()
    config.write_bytes(content.replace(b"llama", b"lLama"))
    with pytest.raises(CommandError, match="1 of 1"):
        run("verify", f"{name}@1")
    assert outcomes(owner_sql, version, "model.verify") == ["success", "failure"]


def test_verify_finds_an_artefact_that_was_exchanged_with_its_manifest(
    source: Path, name: str
) -> None:
    run("import", str(source), "--name", name, "--label", "1")
    first = version_of(name)
    (source / "README.md").write_text(f"---\nlicense: mit\n---\nother {name}")
    run("import", str(source), "--name", name, "--label", "2")
    second = ModelVersion.objects.get(model__name=name, label="2")
    for path in (Path(first.path), Path(second.path)):
        assert path.is_dir()
    Path(first.path).rename(Path(first.path).with_name(f"gone-{name}"))
    Path(second.path).rename(first.path)
    said = io.StringIO()
    with pytest.raises(CommandError):
        call_command("model", "verify", f"{name}@1", stdout=said)
    assert "is not the one that was registered" in said.getvalue()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("verify",), "Name one version"),
        (("verify", "x@1", "--all"), "Name one version"),
        (("verify", "no-such@1"), "There is no version"),
    ],
)
def test_verify_says_what_it_wants(database: None, words: tuple[str, ...], fault: str) -> None:
    with pytest.raises(CommandError, match=fault):
        run(*words)


def test_verify_is_the_platforms(tenant_a: Organisation) -> None:
    with pytest.raises(Forbidden):
        verify_model_version(context=tenant_a.owner.context, version_id=uuid7())
    with pytest.raises(NotFound):
        verify_model_version(context=TESTS, version_id=uuid7())
