"""Importing folders with safetensors: what is taken, what is refused, and which file is named."""

import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from inference.artefacts import KvGeometry, Manifest, import_model, load_manifest, verify
from inference.artefacts.tokenizer import byte_level_tokenizer
from inference.engines.base import Message
from inference.prompts import PromptEncoder
from portal.core.errors import Invalid, NotFound
from tests.inference.model_folders import (
    CONFIG,
    TEMPLATE,
    pieces,
    tokenizer_model,
    write_folder,
    write_safetensors,
)

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source")


def imported(source: Path, **changes: Any) -> Manifest:
    return import_model(source, source.parent / "store", name="tiny", **changes)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(path: Path, name: str) -> None:
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))


def test_import_folder_takes_what_a_model_needs(source: Path) -> None:
    (source / "modeling_tiny.py").write_text("raise SystemExit")
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (source / "LICENSE").write_text("words")
    manifest = imported(source)
    folder = source.parent / "store" / manifest.id
    assert manifest == load_manifest(folder) == verify(folder)
    assert sorted(manifest.files) == [
        "LICENSE",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        FIRST,
        SECOND,
        INDEX,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*manifest.files, "manifest.json"])
    assert (folder / FIRST).samefile(source / FIRST)
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert (manifest.format, manifest.architecture) == ("safetensors", "llama")
    assert (manifest.quantization, manifest.licence) == ("BF16", "apache-2.0")
    assert manifest.provenance == str(source)
    assert (manifest.context_length, manifest.vocab_size) == (256, 258)
    assert (manifest.bos_token_id, manifest.eos_token_ids) == (0, (1,))
    assert manifest.kv == KvGeometry(layers=2, kv_heads=2, head_dim=8)


def test_import_folder_twice_changes_nothing_and_other_content_is_another(source: Path) -> None:
    first = imported(source)
    assert imported(source, licence="MIT") == first
    edit(source / "generation_config.json", temperature=0.5)
    assert imported(source).digest != first.digest
    assert imported(source, template="{{ messages[0].content }}").digest != first.digest


def test_import_single_file_needs_no_index(source: Path) -> None:
    for name in (FIRST, SECOND, INDEX):
        (source / name).unlink()
    write_safetensors(source / "model.safetensors", ["a"])
    write_safetensors(source / "consolidated.safetensors", ["a"])
    manifest = imported(source)
    weights = [name for name in manifest.files if name.endswith(".safetensors")]
    assert weights == ["model.safetensors"]


def test_import_latent_attention_has_no_geometry_of_heads(source: Path) -> None:
    edit(source / "config.json", model_type="deepseek_v3", kv_lora_rank=8)
    manifest = imported(source)
    assert (manifest.architecture, manifest.kv) == ("deepseek_v3", None)


def test_import_multimodal_config_reads_its_text_part(source: Path) -> None:
    inner = CONFIG | {"max_position_embeddings": 99}
    (source / "config.json").write_text(json.dumps({"model_type": "m", "text_config": inner}))
    assert imported(source).context_length == 99


def test_import_template_from_file_or_list(source: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    edit(source / "tokenizer_config.json", chat_template=named)
    store = source.parent / "store"
    assert (store / imported(source).id / "chat_template.jinja").read_text() == "d"
    (source / "chat_template.jinja").write_text("f")
    assert (store / imported(source).id / "chat_template.jinja").read_text() == "f"


def test_import_converts_a_tokenizer_model_once_and_encodes(source: Path) -> None:
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.model").write_bytes(tokenizer_model(pieces()))
    manifest = imported(source, template="{{ bos_token }}{{ messages[0].content }}")
    folder = source.parent / "store" / manifest.id
    assert {"tokenizer.model", "tokenizer.json"} <= set(manifest.files)
    encoder = PromptEncoder.load(folder)
    assert encoder.encode_raw([Message("", "hello")]) == [encoder._tokenizer.token_to_id("▁hello")]
    before = (folder / "tokenizer.json").stat()
    imported(source, template="{{ bos_token }}{{ messages[0].content }}")
    assert (folder / "tokenizer.json").stat() == before


def test_import_takes_what_looks_like_a_control_token_for_one(source: Path) -> None:
    role, plain = "<｜User｜>", "<think>"  # noqa: RUF001 - DeepSeek's own spelling
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (role, plain)])
    (source / "tokenizer.json").write_text(tokenizer.to_str())
    template = f"{role}{{{{ messages[0].content }}}}"
    folder = source.parent / "store" / imported(source, template=template).id
    ids = PromptEncoder.load(folder).encode([Message("user", f"a{role}b{plain}")])
    assert ids[0] == tokenizer.token_to_id(role)
    assert ids.count(ids[0]) == 1
    assert ids[-1] == tokenizer.token_to_id(plain)


def _truncate(name: str) -> Callable[[Path], object]:
    return lambda source: (source / name).write_bytes((source / name).read_bytes()[:-1])


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda source: (source / name).write_bytes(content)


def _remove(*names: str) -> Callable[[Path], object]:
    def remove(source: Path) -> None:
        for name in names:
            (source / name).unlink()

    return remove


def _header(entry: object, rest: int = 16) -> bytes:
    text = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(rest)


def _pickle_only(source: Path) -> None:
    _remove(FIRST, SECOND, INDEX)(source)
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def _moved_tensor(source: Path) -> None:
    edit(source / INDEX, weight_map={"a": FIRST, "b": FIRST, "c": SECOND, "d": SECOND})


def _outside(source: Path) -> None:
    edit(source / INDEX, weight_map={"a": "../../etc/passwd.safetensors"})


def _good(places: list[int]) -> object:
    return {"dtype": "F32", "shape": [4], "data_offsets": places}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_remove(SECOND), f"{SECOND} is missing"),
        (_truncate(SECOND), f"{SECOND} is truncated: tensor c"),
        (_write(SECOND, b"\x00\x00"), f"{SECOND} is truncated: it has no header"),
        (_write(SECOND, struct.pack("<Q", 999) + b"{}"), "its header is incomplete"),
        (_write(SECOND, struct.pack("<Q", 1 << 60)), "no safetensors file"),
        (_write(SECOND, struct.pack("<Q", 2) + b"{["), f"{SECOND} is damaged: .*no JSON"),
        (_write(SECOND, _header(_good([0, 16]), rest=20)), "4 bytes at its end"),
        (_write(SECOND, _header(_good([4, 20]), rest=20)), "gap before tensor a"),
        (_write(SECOND, _header(_good([0, 12]), rest=12)), "size of tensor a"),
        (_write(SECOND, _header({"dtype": "X9"})), "malformed"),
        (_moved_tensor, f"{SECOND} lacks tensor d"),
        (_outside, "no safetensors file of its folder"),
        (_write(INDEX, b"{"), f"{INDEX} is damaged"),
        (_write(INDEX, b'{"weight_map": {}}'), f"{INDEX} names no weights"),
        (_remove(INDEX), f"{INDEX} is missing"),
        (_remove(FIRST, SECOND, INDEX), "holds no weights"),
        (_pickle_only, r"pickled weights only \(pytorch_model.bin\)"),
        (_remove("config.json"), "config.json is missing"),
        (_write("config.json", b"[]"), "config.json is no JSON object"),
        (lambda s: without(s / "config.json", "model_type"), "model_type"),
        (lambda s: without(s / "config.json", "vocab_size"), "vocab_size"),
        (lambda s: without(s / "config.json", "max_position_embeddings"), "max_position"),
        (_remove("tokenizer.json"), "tokenizer.json is missing, and tokenizer.model too"),
        (_write("tokenizer.json", b"{}"), "tokenizer.json is damaged"),
        (_write("tokenizer_config.json", b"nope"), "tokenizer_config.json is no JSON"),
        (_write("tokenizer_config.json", b"{}"), "has no chat template"),
        (_remove("README.md"), "does not say its licence"),
    ],
)  # fmt: skip
def test_import_damaged_folder_names_the_file(
    source: Path, damage: Callable[[Path], object], words: str
) -> None:
    damage(source)
    with pytest.raises(Invalid, match=words):
        imported(source)
    assert list((source.parent / "store").glob("*")) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tokenizer_model(pieces(), model_type=1), "no BPE model"),
        (tokenizer_model(pieces())[:-9], "truncated|malformed"),
        (tokenizer_model(pieces()[:40]), "37 of the 256 byte tokens"),
        (b"\xff" * 30, "malformed"),
    ],
)
def test_import_bad_tokenizer_model_is_refused(source: Path, content: bytes, words: str) -> None:
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.model").write_bytes(content)
    with pytest.raises(Invalid, match=words):
        imported(source)


def test_import_nowhere_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        imported(tmp_path / "nothing")


def test_import_licence_of_another_kind_takes_its_name(source: Path) -> None:
    (source / "README.md").write_text("---\nlicense: other\nlicense_name: gemma\n---\n")
    assert imported(source).licence == "gemma"
    (source / "README.md").write_text("# no front matter\nlicense: mit\n")
    assert imported(source, licence="MIT").licence == "MIT"


def test_artefacts_import_without_torch() -> None:
    program = (
        "import sys, inference.artefacts, inference.artefacts.mirror;"
        "assert not {'torch', 'transformers', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
