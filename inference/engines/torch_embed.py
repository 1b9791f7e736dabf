"""Encoders through torch and transformers: embeddings, and cross-encoders that rank.

An artefact of ``import_transformer`` whose configuration names a ``ForSequenceClassification``
reads a query together with each document and gives a score; any other is pooled to a vector. Only
safetensors are read, and no code that an artefact brings is run.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from inference.artefacts import EmbeddingFacts, load_manifest
from inference.artefacts.embedding import TRANSFORMER_FORMAT
from inference.engines.base import Emit, EngineOptions
from inference.engines.embedding import EmbeddingEngine, Work
from inference.engines.options import parse_options
from inference.engines.vectors import Vector
from portal.core.errors import Invalid


class TorchEmbedOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the engine.

    Args:
        slots: requests that are served at once.
        batch_tokens: most tokens that go through the model in a step, padding not counted.
        device: where the model runs; ``auto`` takes a GPU if there is one.
        dtype: of weights and arithmetic; ``auto`` takes what the artefact has.
        threads: of the processor; None leaves it to torch.
    """

    slots: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    batch_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 8192
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None


class TorchEmbedEngine(EmbeddingEngine):
    """Runs an artefact of ``import_transformer``; see ``TorchEmbedOptions``."""

    def __init__(
        self,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
    ) -> None:
        self._options = parse_options(TorchEmbedOptions, options, engine="torch_embed")
        super().__init__(
            slots=self._options.slots,
            batch_tokens=self._options.batch_tokens,
            context_length=context_length,
            emit=emit,
        )
        self._folder = artefact_dir
        self._device = _device(self._options.device)
        self._facts = EmbeddingFacts(0)
        self._padding = 0
        self._model: Any = None
        self._tokenizer: Any = None

    def _open(self) -> None:
        manifest = load_manifest(self._folder)
        if manifest.format != TRANSFORMER_FORMAT or manifest.embedding is None:
            raise Invalid(
                f"The engine torch_embed can't serve an artefact of format {manifest.format}."
            )
        if self._options.threads is not None:
            torch.set_num_threads(self._options.threads)
        self._facts = manifest.embedding
        config = AutoConfig.from_pretrained(self._folder, trust_remote_code=False)
        self._padding = config.pad_token_id or 0
        names = config.architectures or []
        self.reads_pairs = any(name.endswith("ForSequenceClassification") for name in names)
        kind = AutoModelForSequenceClassification if self.reads_pairs else AutoModel
        self._model = (
            kind.from_pretrained(
                self._folder,
                config=config,
                dtype=self._options.dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
            .to(self._device)
            .eval()
        )
        self._tokenizer = Tokenizer.from_str((self._folder / "tokenizer.json").read_text("utf-8"))
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.enable_truncation(self._context_length)

    def _compute(self, batch: Sequence[Work]) -> list[Vector]:
        encoded = [self._encoded(work) for work in batch]
        # Those of a like length together, so that little is padded.
        order = sorted(range(len(batch)), key=lambda n: len(encoded[n].ids))
        found: list[Vector] = [array("f")] * len(batch)
        for group in _groups(order, [len(e.ids) for e in encoded], self._batch_tokens):
            rows = self._forward([encoded[n] for n in group])
            for place, row in zip(group, rows, strict=True):
                found[place] = self._result(row, batch[place].dimensions)
        return found

    def _encoded(self, work: Work) -> Any:
        text = self._facts.prefix(work.message.role) + work.message.content
        if self.reads_pairs:
            return self._tokenizer.encode(work.query, text)
        return self._tokenizer.encode(text)

    def _forward(self, encoded: Sequence[Any]) -> torch.Tensor:
        """The pooled rows of some inputs, or the logits of some pairs."""
        longest = max(len(e.ids) for e in encoded)

        def padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
            full = [[*row, *[filler] * (longest - len(row))] for row in rows]
            return torch.tensor(full, device=self._device)

        words = {
            "input_ids": padded([e.ids for e in encoded], self._padding),
            "attention_mask": padded([e.attention_mask for e in encoded], 0),
        }
        if getattr(self._model.config, "type_vocab_size", 0) > 1:
            words["token_type_ids"] = padded([e.type_ids for e in encoded], 0)
        with torch.inference_mode():
            output = self._model(**words)
            if self.reads_pairs:
                rows: torch.Tensor = output.logits.float()
            else:
                rows = self._pooled(output.last_hidden_state.float(), words["attention_mask"])
        return rows.cpu()

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._facts.pooling == "cls":
            return states[:, 0]
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)

    def _result(self, row: torch.Tensor, dimensions: int) -> Vector:
        if self.reads_pairs:
            # One label is a score between 0 and 1 as sentence-transformers reads it; of two
            # labels the second says that the document answers.
            score = torch.sigmoid(row[0]) if len(row) == 1 else torch.softmax(row, 0)[-1]
            return array("f", [float(score)])
        cut = row[:dimensions] if dimensions else row
        return array("f", torch.nn.functional.normalize(cut, dim=0).tolist())

    def _release(self) -> None:
        super()._release()
        self._model = None


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _groups(order: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """The places in groups whose tokens, padded, are no more than ``most``; one place always."""
    groups: list[list[int]] = []
    for place in order:
        # In order of length, so this one is the longest of its group so far.
        if groups and (len(groups[-1]) + 1) * lengths[place] <= most:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
