"""Models that embed or rank and are served elsewhere: their artefacts, and how servers answer."""

import base64
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from inference.artefacts import import_transformer
from tests.inference.engines.doubles import Asked, Reply

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "Hello", "query:", "passage:"]
DIMENSIONS = 4
MOST_TEI_INPUTS = 3
INFO = {
    "model_id": "m",
    "max_client_batch_size": MOST_TEI_INPUTS,
    "max_input_length": 40,
    "auto_truncate": True,
}


def write_encoder(folder: Path, *, architecture: str = "BertModel", **config: Any) -> Path:
    """The folder of an encoder without its weights, as sentence-transformers lays it out."""
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    # As many are published: cut and padded by themselves.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {
        "architectures": [architecture],
        "model_type": "bert",
        "vocab_size": len(WORDS),
        "hidden_size": DIMENSIONS,
        "max_position_embeddings": 40,
    }
    (folder / "config.json").write_text(json.dumps(facts | config))
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def encoder_artefact(store: Path, source: Path) -> Path:
    """The imported artefact, without weights."""
    manifest = import_transformer(
        source, store, name="tiny", licence="MIT", provenance="made here", weights=False
    )
    return store / manifest.id


def vector_of(given: str | Sequence[int]) -> list[float]:
    """What a server makes of an input: of length 5, so that it is seen who brings it to 1."""
    return [3.0, 4.0, 0.0, 0.0] if len(given) % 2 else [0.0, 3.0, 0.0, 4.0]


def packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def score_of(document: str) -> float:
    return len(document) / 100


def openai_embeddings(asked: Asked) -> Reply:
    """OpenAI's answer, the last input first; as base64 where asked for."""
    inputs = asked.body["input"]
    as_text = asked.body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": n, "embedding": packed(v) if as_text else v}
        for n, v in enumerate(map(vector_of, inputs))
    ]
    tokens = sum(map(len, inputs))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data[::-1], "model": "the-model", "usage": usage}
    return Reply(body=body)


def vllm_ranking(asked: Asked) -> Reply:
    """The best first, as vLLM and llama.cpp answer."""
    documents = asked.body["documents"]
    results: list[dict[str, Any]] = [
        {"index": n, "document": {"text": text}, "relevance_score": score_of(text)}
        for n, text in enumerate(documents)
    ]
    results.sort(key=lambda one: -one["relevance_score"])
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    return Reply(body={"id": "rerank-1", "model": "m", "usage": usage, "results": results})


def sglang_ranking(asked: Asked) -> Reply:
    """A bare list, the best first."""
    found: list[dict[str, Any]] = [
        {"score": score_of(text), "document": None, "index": n, "meta_info": {}}
        for n, text in enumerate(asked.body["documents"])
    ]
    return Reply(body=sorted(found, key=lambda one: -one["score"]))


def tei(asked: Asked) -> Reply:
    """Text Embeddings Inference; what is too much for it is refused in its words."""
    inputs = asked.body["inputs" if asked.path == "/embed" else "texts"]
    if len(inputs) > MOST_TEI_INPUTS:
        message = f"batch size {len(inputs)} > maximum allowed batch size {MOST_TEI_INPUTS}"
        return Reply(status=413, body={"error": message, "error_type": "validation"})
    if asked.path == "/embed":
        return Reply(body=[[x / 5 for x in vector_of(text)] for text in inputs])
    ranks: list[dict[str, Any]] = [
        {"index": n, "score": score_of(text)} for n, text in enumerate(inputs)
    ]
    return Reply(body=sorted(ranks, key=lambda one: -one["score"]))


def server_of(family: str) -> Callable[[Asked], Reply]:
    """A good server of that family, whatever it is asked for."""
    if family == "tei":
        return tei
    ranking = sglang_ranking if family == "sglang" else vllm_ranking

    def answer(asked: Asked) -> Reply:
        by_path = {"/v1/embeddings": openai_embeddings, "/v1/rerank": ranking}
        found = by_path.get(asked.path)
        return Reply(status=404) if found is None else found(asked)

    return answer
