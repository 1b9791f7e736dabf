"""Models that embed or rank, and those that are served elsewhere, by ``manage.py model import``."""

import io
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from inference.artefacts import load_manifest
from inference.inputs import InputEncoder, load_encoder
from inference.models import ModelVersion, Task
from inference.prompts import PromptEncoder
from inference.services import register_artefact
from tests.factories import TESTS
from tests.inference.engines.encoders import write_encoder
from tests.inference.gguf_files import write_gguf
from tests.inference.mirror import REPOSITORY, running_mirror
from tests.inference.model_folders import write_folder, write_safetensors

CROSS = "BertForSequenceClassification"


@pytest.fixture
def name(database: None) -> str:
    return f"m-{uuid4().hex[:8]}"


def encoder(folder: Path, name: str, **facts: Any) -> Path:
    """A folder with weights, whose content no other test has."""
    source = write_encoder(folder, **facts)
    write_safetensors(source / "model.safetensors", ["a"])
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    (source / "special_tokens_map.json").write_text(json.dumps({"of": name}))
    return source


def plain_encoder(folder: Path, name: str, **facts: Any) -> Path:
    """The same without what sentence-transformers writes."""
    source = encoder(folder, name, **facts)
    (source / "config_sentence_transformers.json").unlink()
    return source


def run(source: Path | str, name: str, *words: str) -> ModelVersion:
    said = io.StringIO()
    words = ("import", str(source), "--name", name, "--label", "1", *words)
    call_command("model", *words, stdout=said, stderr=said)
    return ModelVersion.objects.select_related("model").get(model__name=name)


def test_import_of_what_embeds_is_told_from_its_files(tmp_path: Path, name: str) -> None:
    version = run(encoder(tmp_path / "source", name), name)
    assert (version.model.task, version.format, version.licence) == (
        Task.EMBED,
        "transformer",
        "mit",
    )
    facts = load_manifest(Path(version.path)).embedding
    assert facts is not None
    assert (facts.query_prefix, facts.pairs) == ("query: ", False)


def test_import_of_a_cross_encoder_is_told_from_its_architecture(tmp_path: Path, name: str) -> None:
    version = run(plain_encoder(tmp_path / "source", name, architecture=CROSS), name)
    assert (version.model.task, version.format) == (Task.RERANK, "transformer")


def test_import_that_cannot_be_told_says_what_to_say(tmp_path: Path, name: str) -> None:
    source = plain_encoder(tmp_path / "source", name)
    with pytest.raises(CommandError, match="--task generation, embedding or rerank"):
        run(source, name)
    assert run(source, name, "--task", "embedding").model.task == Task.EMBED


def test_import_of_what_the_weights_are_not_for_is_refused(tmp_path: Path, name: str) -> None:
    ranks = plain_encoder(tmp_path / "ranks", name, architecture=CROSS)
    with pytest.raises(CommandError, match="ranks documents, by its architecture"):
        run(ranks, name, "--task", "embedding")
    embeds = encoder(tmp_path / "embeds", name)
    with pytest.raises(CommandError, match="is no cross-encoder"):
        run(embeds, name, "--task", "rerank")
    # Served elsewhere it ranks, whatever its architecture is called.
    version = run(embeds, name, "--task", "rerank", "--tokenizer-only")
    assert (version.model.task, version.format) == (Task.RERANK, "remote")
    other = run(embeds, f"{name}-embeds", "--tokenizer-only")
    assert other.model.task == Task.EMBED
    assert other.path != version.path


def test_import_of_a_gguf_file_that_embeds_says_how(tmp_path: Path, name: str) -> None:
    source = write_gguf(tmp_path / "model.gguf")
    with pytest.raises(CommandError, match="serve it by llama.cpp"):
        run(source, name, "--task", "embedding", "--licence", "mit")
    with pytest.raises(CommandError, match="is no folder"):
        run(source, name, "--tokenizer-only", "--licence", "mit")


def test_import_of_the_tokenizer_alone_needs_no_weights(tmp_path: Path, name: str) -> None:
    source = write_folder(tmp_path / "source", shards={})
    (source / "tokenizer_config.json").write_text(json.dumps({"chat_template": f"{name}"}))
    version = run(source, name, "--tokenizer-only", "--context-length", "100")
    assert (version.model.task, version.format, version.context_length) == (
        Task.GENERATE,
        "remote",
        100,
    )
    assert version.licence == "apache-2.0"
    assert set(version.files or {}) == {"tokenizer.json", "chat_template.jinja"}
    assert isinstance(load_encoder(Path(version.path), Task.GENERATE), PromptEncoder)


def test_import_of_an_encoders_tokenizer_alone_counts_its_inputs(tmp_path: Path, name: str) -> None:
    source = encoder(tmp_path / "source", name)
    (source / "model.safetensors").unlink()
    version = run(source, name, "--tokenizer-only")
    assert (version.model.task, version.format, version.quantization) == (
        Task.EMBED,
        "remote",
        "none",
    )
    inputs = load_encoder(Path(version.path), Task.EMBED)
    assert isinstance(inputs, InputEncoder)
    assert inputs.count("a b", "document") == 5
    # As the pages and the management API register it.
    again = register_artefact(
        context=TESTS, name=f"{name}-again", label="1", artefact=Path(version.path).name
    )
    assert again.model.task == Task.EMBED


@pytest.mark.parametrize(
    ("words", "missing", "fault"),
    [
        (("--context-length", "9"), None, "--context-length is for --tokenizer-only"),
        (("--tokenizer-only", "--context-length", "9"), None, "give its deployment a shorter"),
        (("--tokenizer-only",), "tokenizer.json", "There is no file .*tokenizer.json"),
        (("--tokenizer-only",), "config.json", "There is no file .*config.json"),
        (("--tokenizer-only",), "README.md", "does not say its licence"),
    ],
)
def test_import_that_lacks_something_names_it(
    tmp_path: Path, name: str, words: tuple[str, ...], missing: str | None, fault: str
) -> None:
    source = encoder(tmp_path / "source", name)
    if missing is not None:
        (source / missing).unlink()
    with pytest.raises(CommandError, match=fault):
        run(source, name, *words)


def test_import_of_a_chat_models_tokenizer_names_what_it_lacks(tmp_path: Path, name: str) -> None:
    source = write_folder(tmp_path / "source", shards={})
    (source / "tokenizer_config.json").unlink()
    with pytest.raises(CommandError, match="give one \\(--chat-template\\)"):
        run(source, name, "--tokenizer-only")
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}" + name)
    version = run(source, name, "--tokenizer-only", "--chat-template", str(template))
    assert (Path(version.path) / "chat_template.jinja").read_text() == template.read_text()


def test_import_from_a_mirror_fetches_no_weights_for_what_is_served_elsewhere(
    tmp_path: Path, name: str
) -> None:
    source = encoder(tmp_path / "source", name)
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text("{}")
    with running_mirror(source) as mirror:
        version = run(f"{REPOSITORY}@main", name, "--mirror", mirror.url, "--tokenizer-only")
        assert "model.safetensors" not in mirror.fetched()
    assert version.model.task == Task.EMBED
    assert "1_Pooling/config.json" in (version.files or {})
