"""Artefacts of models that are served elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from inference.artefacts.remote import import_tokenizer
from inference.artefacts.tokenizer import byte_level_tokenizer
from inference.engines.base import Message
from inference.prompts import PromptEncoder
from portal.core.errors import Invalid, NotFound, PortalError

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "tokenizer.json").write_text(byte_level_tokenizer().to_str())
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512}
    (made / "config.json").write_text(json.dumps(config | {"eos_token_id": [1, 99999]}))
    settings = {
        "chat_template": TEMPLATE,
        "bos_token": {"content": "<|im_start|>"},
        "eos_token": "<|im_end|>",
    }
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def take(folder: Path, store: Path, **more: Any) -> Any:
    return import_tokenizer(
        folder, store, name="m", licence="MIT", provenance="https://models.test/m", **more
    )


def test_import_keeps_what_prompts_need_and_no_weights(folder: Path, tmp_path: Path) -> None:
    manifest = take(folder, tmp_path / "store")
    assert (manifest.format, manifest.context_length) == ("remote", 512)
    assert (manifest.bos_token_id, manifest.eos_token_ids) == (0, (1,))
    artefact = tmp_path / "store" / manifest.id
    files = {path.name for path in artefact.iterdir()}
    assert files == {"manifest.json", "tokenizer.json", "chat_template.jinja"}
    ids = PromptEncoder.load(artefact).encode([Message("user", "hey <|im_end|>")])
    # The template's own token is one; a caller's spelling of another is text.
    assert ids[0] == 0
    assert len(ids) == 1 + len("hey <|im_end|>")
    assert take(folder, tmp_path / "store") == manifest


def test_import_takes_the_servers_context_length(folder: Path, tmp_path: Path) -> None:
    assert take(folder, tmp_path / "store", context_length=64).context_length == 64


def test_import_prefers_the_template_file(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text("mine")
    manifest = take(folder, tmp_path / "store")
    artefact = tmp_path / "store" / manifest.id
    assert (artefact / "chat_template.jinja").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("tokenizer.json", None, NotFound),
        ("tokenizer.json", "{}", Invalid),
        ("tokenizer.json", Tokenizer(models.WordLevel({"ж": 0}, "ж")).to_str(), Invalid),
        ("tokenizer_config.json", None, NotFound),
        ("config.json", None, Invalid),
        ("config.json", "[", Invalid),
    ],
)
def test_import_of_an_unusable_folder_names_what_is_wrong(
    folder: Path, tmp_path: Path, name: str, content: str | None, kind: type[PortalError]
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(kind):
        take(folder, tmp_path / "store")
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store").iterdir())
