"""What OpenVINO serves beside the shipped file: eight-bit GGUF and its own format, 64 at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from inference.artefacts import import_model, verify
from inference.engines import create_engine
from inference.engines.base import Engine, Event, GenerationRequest, Message, Sampling
from inference.prompts import PromptEncoder
from portal.core.errors import Invalid, PortalError
from tests.inference.engines.smollm2 import write_ir_folder, write_q8_0
from tests.inference.engines.support import Sink
from tests.inference.model_folders import write_folder

QUESTION = [Message("user", "What is the capital of France?")]
SLOTS = 64


@pytest.fixture(scope="module")
def q8_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_q8_0(tmp_path_factory.mktemp("q8_0") / "model.gguf")


@pytest.fixture(scope="module")
def ir(tmp_path_factory: pytest.TempPathFactory, q8_0: Path) -> Path:
    return write_ir_folder(tmp_path_factory.mktemp("ir") / "model", q8_0)


def loaded(source: Path, store: Path, emit: Sink, slots: int) -> tuple[Engine, Path]:
    manifest = import_model(source, store, name="smollm2", licence="Apache-2.0")
    engine = create_engine(
        "openvino",
        artefact_dir=store / manifest.id,
        context_length=512,
        options={"cache_mb": 128, "slots": slots},
        emit=emit,
    )
    engine.load()
    return engine, store / manifest.id


@pytest.fixture(scope="module")
def ir_engine(
    ir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, Path, list[Sink]]]:
    sinks: list[Sink] = []

    def emit(events: Sequence[Event]) -> None:
        sinks[-1](events)

    engine, artefact = loaded(ir, tmp_path_factory.mktemp("store"), emit, SLOTS)  # type: ignore[arg-type]
    yield engine, artefact, sinks
    engine.close()


@pytest.fixture
def sink(ir_engine: tuple[Engine, Path, list[Sink]]) -> Sink:
    ir_engine[2].append(Sink())
    return ir_engine[2][-1]


@pytest.mark.timeout(300)
def test_generate_from_eight_bit_gguf_answers(q8_0: Path, tmp_path: Path) -> None:
    sink = Sink()
    engine, artefact = loaded(q8_0, tmp_path, sink, 2)
    try:
        assert verify(artefact).quantization == "Q8_0"
        ids = PromptEncoder.load(artefact).encode(QUESTION)
        engine.submit(GenerationRequest("a", ids, (), Sampling(max_tokens=12, temperature=0.0)))
        sink.done("a")
        assert "Paris" in sink.text("a")
        stats = engine.stats()
        assert stats.memory_bytes > q8_0.stat().st_size
    finally:
        engine.close()


@pytest.mark.timeout(300)
def test_generate_from_openvinos_own_format_64_at_once(
    ir_engine: tuple[Engine, Path, list[Sink]], sink: Sink
) -> None:
    engine, artefact, _ = ir_engine
    manifest = verify(artefact)
    assert (manifest.format, manifest.architecture, manifest.licence) == (
        "openvino",
        "llama",
        "Apache-2.0",
    )
    encoder = PromptEncoder.load(artefact)
    names = [f"r{n}" for n in range(SLOTS)]
    prompts = {
        name: encoder.encode([Message("user", f"What is the capital of France? ({n})")])
        for n, name in enumerate(names)
    }
    for name in names:
        sampling = Sampling(max_tokens=8, temperature=0.0)
        engine.submit(GenerationRequest(name, prompts[name], (), sampling))
    for name in names:
        done = sink.done(name)
        assert done.prompt_tokens == len(prompts[name])
        assert done.completion_tokens == sink.tokens(name)
        assert sink.text(name)
    assert sum("Paris" in sink.text(name) for name in names) > SLOTS // 2
    # Far fewer steps than one after the other would take: they ran together.
    assert len(sink.batches) < SLOTS * 4
    stats = engine.stats()
    assert (stats.slots, stats.running, stats.waiting) == (SLOTS, 0, 0)


def test_stats_tell_what_the_cache_holds(
    ir_engine: tuple[Engine, Path, list[Sink]], sink: Sink
) -> None:
    engine, artefact, _ = ir_engine
    ids = PromptEncoder.load(artefact).encode(QUESTION)
    engine.submit(GenerationRequest("a", ids, (), Sampling(max_tokens=300, temperature=0.0)))
    sink.wait(lambda: sink.tokens("a") > 0)
    during = engine.stats()
    engine.cancel("a")
    sink.done("a")
    after = engine.stats()
    assert during.cache_tokens == after.cache_tokens > 0
    assert during.cached_tokens >= len(ids) + 300
    assert after.cached_tokens == 0
    weights = verify(artefact).files["openvino_model.bin"].size
    assert after.memory_bytes > weights + 100 * 2**20


def damaged(folder: Path, name: str, content: bytes | None) -> Path:
    write_folder(folder, shards={})
    (folder / "model.safetensors.index.json").unlink()
    constant = b'<data element_type="f16" shape="2" offset="4" size="8" />'
    (folder / "openvino_model.xml").write_bytes(
        b'<?xml version="1.0"?>\n<net name="m" version="11">' + constant + b"</net>\n"
    )
    (folder / "openvino_model.bin").write_bytes(bytes(12))
    for part in ("openvino_tokenizer.xml", "openvino_tokenizer.bin"):
        (folder / part).write_bytes((folder / part.replace("tokenizer", "model")).read_bytes())
    if content is None:
        (folder / name).unlink()
    elif name:
        (folder / name).write_bytes(content)
    return folder


def test_import_openvino_folder_takes_model_and_tokenizers(tmp_path: Path) -> None:
    source = damaged(tmp_path / "source", "", b"")
    manifest = import_model(source, tmp_path / "store", name="tiny")
    assert (manifest.format, manifest.quantization) == ("openvino", "F16")
    assert {name for name in manifest.files if name.startswith("openvino")} == {
        "openvino_model.xml",
        "openvino_model.bin",
        "openvino_tokenizer.xml",
        "openvino_tokenizer.bin",
    }


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("openvino_model.bin", None, "openvino_model.bin is missing"),
        ("openvino_model.xml", None, "openvino_model.xml is missing"),
        ("openvino_model.bin", bytes(11), "openvino_model.bin is truncated"),
        ("openvino_model.xml", b"", "openvino_model.xml is empty"),
        ("openvino_model.xml", b'<net name="m">', "openvino_model.xml is damaged"),
        ("openvino_tokenizer.bin", None, "openvino_tokenizer.bin is missing"),
        ("openvino_tokenizer.bin", b"", "openvino_tokenizer.bin is truncated"),
        ("config.json", None, "config.json is missing"),
    ],
)
def test_import_damaged_openvino_folder_names_the_file(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    source = damaged(tmp_path / "source", name, content)
    with pytest.raises(Invalid, match=words):
        import_model(source, tmp_path / "store", name="tiny")


def test_load_safetensors_is_refused_by_openvino(tmp_path: Path) -> None:
    manifest = import_model(write_folder(tmp_path / "source"), tmp_path / "store", name="tiny")
    engine = create_engine(
        "openvino",
        artefact_dir=tmp_path / "store" / manifest.id,
        context_length=64,
        options={},
        emit=Sink(),
    )
    with pytest.raises(PortalError, match="no weights for OpenVINO"):
        engine.load()
