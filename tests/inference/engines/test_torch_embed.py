"""Encoders through torch, on tiny models with random weights."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from inference.artefacts import Manifest, import_transformer
from inference.engines import create_engine_here
from inference.engines.base import Embedding, Engine, GenerationRequest, Message, Sampling
from inference.engines.vectors import Vector, dot, packed_vectors, unpack_vector
from inference.inputs import InputEncoder, load_encoder
from portal.core.errors import Invalid, NotFound
from tests.inference.engines.device import DEVICE
from tests.inference.engines.support import Sink

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "query:", "passage:"]
SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
PROMPTS = {"prompts": {"query": "query: ", "document": "passage: "}}

Serve = Callable[..., tuple[Engine, Sink]]


def snapshot(folder: Path, model: Any, **files: Any) -> Path:
    """A folder as sentence-transformers writes it; ``__`` in a name is a slash."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def tiny_bert(folder: Path, **files: Any) -> Path:
    torch.manual_seed(5)
    return snapshot(folder, BertModel(BertConfig(**SIZES)), **files)


def imported(source: Path) -> tuple[Manifest, Path]:
    store = source.parent / "store"
    manifest = import_transformer(source, store, name="tiny", licence="MIT", provenance="made here")
    return manifest, store / manifest.id


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Engine] = []

    def start(artefact: Path, context_length: int = 40, **options: Any) -> tuple[Engine, Sink]:
        sink = Sink()
        engine = create_engine_here(
            "torch_embed",
            artefact_dir=artefact,
            context_length=context_length,
            options={"device": DEVICE.type, "threads": 1, **options},
            emit=sink,
        )
        engine.load()
        made.append(engine)
        return engine, sink

    yield start
    for engine in made:
        engine.close()


def asked(
    engine: Engine,
    sink: Sink,
    name: str,
    texts: list[tuple[str, str]],
    *,
    kind: Any = "embed",
    dimensions: int = 0,
) -> list[Vector]:
    messages = tuple(Message(role, text) for role, text in texts)
    tokens = tuple(len(text.split()) + 3 for _, text in texts)
    embedding = Embedding(kind, tokens, dimensions)
    engine.submit(GenerationRequest(name, (), messages, Sampling(0), embedding=embedding))
    sink.done(name)
    return [unpack_vector(packed) for packed in packed_vectors(sink.text(name))]


def by_hand(source: Path, ids: list[int], pooling: str) -> torch.Tensor:
    model: Any = BertModel.from_pretrained(source)
    model.eval()
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    pooled = states.mean(0) if pooling == "mean" else states[0]
    return torch.nn.functional.normalize(pooled, dim=0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embed_gives_what_the_model_gives_alone_however_it_is_batched(
    tmp_path: Path, serve: Serve, pooling: str
) -> None:
    mode = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}[pooling]
    source = tiny_bert(
        tmp_path / "bert",
        **{"1_Pooling__config": {mode: True}, "config_sentence_transformers": PROMPTS},
    )
    _, artefact = imported(source)
    engine, sink = serve(artefact, batch_tokens=30)
    texts = [("document", "a"), ("query", "b c d"), ("document", "d d d d d d c a"), ("query", "a")]
    together = asked(engine, sink, "together", texts)
    for n, text in enumerate(texts):
        (alone,) = asked(engine, sink, f"alone{n}", [text])
        assert list(together[n]) == pytest.approx(list(alone), abs=1e-5)
        prefix = {"query": "query:", "document": "passage:"}[text[0]]
        ids = [2, *(WORDS.index(w) for w in (prefix, *text[1].split())), 3]
        assert list(alone) == pytest.approx(by_hand(source, ids, pooling).tolist(), abs=1e-5)
    assert [dot(v, v) for v in together] == pytest.approx([1.0] * 4, abs=1e-5)


def test_embed_with_fewer_dimensions_cuts_and_brings_to_length_one(
    tmp_path: Path, serve: Serve
) -> None:
    manifest, artefact = imported(tiny_bert(tmp_path / "bert"))
    assert manifest.embedding is not None
    assert (manifest.embedding.dimensions, manifest.embedding.shorter) == (32, ())
    engine, sink = serve(artefact)
    (full,) = asked(engine, sink, "full", [("document", "a b")])
    (cut,) = asked(engine, sink, "cut", [("document", "a b")], dimensions=8)
    assert len(cut) == 8
    assert dot(cut, cut) == pytest.approx(1, abs=1e-5)
    assert cut[1] / cut[0] == pytest.approx(full[1] / full[0], rel=1e-4)


def test_rank_by_a_cross_encoder_reads_query_and_document_together(
    tmp_path: Path, serve: Serve
) -> None:
    torch.manual_seed(7)
    config: Any = BertConfig(**SIZES)
    config.num_labels = 1
    model: Any = BertForSequenceClassification(config)
    source = snapshot(tmp_path / "cross", model)
    _, artefact = imported(source)
    engine, sink = serve(artefact)
    texts = [("query", "a b"), ("document", "c"), ("document", "d d d d"), ("document", "c")]
    (scores,) = asked(engine, sink, "rank", texts, kind="rank")
    assert len(scores) == 3
    assert scores[0] == scores[2] != scores[1]
    pair = {"input_ids": [[2, 4, 5, 3, 6, 3]], "token_type_ids": [[0, 0, 0, 0, 1, 1]]}
    with torch.inference_mode():
        logits = model.eval()(**{k: torch.tensor(v) for k, v in pair.items()}).logits
    assert scores[0] == pytest.approx(float(torch.sigmoid(logits[0, 0])), abs=1e-5)
    engine.submit(
        GenerationRequest(
            "embed",
            (),
            (Message("document", "a"),),
            Sampling(0),
            embedding=Embedding("embed", (3,)),
        )
    )
    assert sink.failed("embed").code == "request_refused"

    encoder = load_encoder(artefact, "rerank")
    assert isinstance(encoder, InputEncoder)
    assert encoder.count("c", "document", "a b") == 6


def test_count_and_read_token_ids_by_the_artefacts_own_tokenizer(tmp_path: Path) -> None:
    source = tiny_bert(tmp_path / "bert", config_sentence_transformers=PROMPTS)
    _, artefact = imported(source)
    encoder = load_encoder(artefact, "embed")
    assert isinstance(encoder, InputEncoder)
    assert encoder.count("a b", "document") == 5
    # A control token that a caller spells is text like any other.
    assert encoder.count("[SEP]", "document") == 4
    assert encoder.text_of([4, 5]) == "a b"
    for wrong in ([2], [99], [-1]):
        with pytest.raises(IndexError):
            encoder.text_of(wrong)


def test_import_roberta_counts_its_positions_behind_the_padding(tmp_path: Path) -> None:
    config = XLMRobertaConfig(**{**SIZES, "pad_token_id": 1})
    source = snapshot(tmp_path / "xlmr", XLMRobertaModel(config))
    manifest, _ = imported(source)
    assert manifest.context_length == 38


def test_import_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        imported(tmp_path)
    source = tiny_bert(
        tmp_path / "odd", **{"1_Pooling__config": {"pooling_mode_weightedmean_tokens": True}}
    )
    with pytest.raises(Invalid, match="pooling"):
        imported(source)
