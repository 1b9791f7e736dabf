"""The engine torch_batch in the test's own process, and what its tiny models have to answer."""

import functools
import random
from pathlib import Path
from typing import Any

from inference.artefacts.tokenizer import byte_level_tokenizer
from inference.engines.base import GenerationRequest, Sampling, Token
from inference.engines.text import TokenBytes
from inference.engines.torch_batch.engine import TorchBatchEngine
from tests.inference.engines.device import DEVICE
from tests.inference.engines.support import Sink
from tests.inference.engines.tiny_models import CONTEXT, greedy, tiny_model

TABLE = TokenBytes(byte_level_tokenizer())
MOST_TOKENS = 32
PROMPTS = [
    [random.Random(n).randrange(2, 258) for _ in range(size)]
    for n, size in enumerate((1, 2, 7, 16, 17, 33, 64, 75))
]
OPTIONS = {"device": DEVICE.type, "slots": 5, "cache_mb": 2, "threads": 1, "prefill_tokens": 16}


class Served(Sink):
    """An engine in this process, and what it emitted."""

    def __init__(
        self, artefact: Path, kind: type[TorchBatchEngine] = TorchBatchEngine, **options: Any
    ) -> None:
        super().__init__()
        self.engine = kind(
            artefact_dir=artefact, context_length=CONTEXT, options=OPTIONS | options, emit=self
        )
        self.engine.load()

    def start(self, name: str, prompt: list[int], *, scope: str = "", **sampling: Any) -> None:
        sampling = {"max_tokens": 8, "temperature": 0.0, "logprobs": 0} | sampling
        self.engine.submit(GenerationRequest(name, prompt, (), Sampling(**sampling), scope))

    def bytes_of(self, name: str) -> list[bytes]:
        """The counted tokens of a request, which are those with log-probabilities."""
        tokens = [event for event in self.of(name) if isinstance(event, Token)]
        assert all(len(token.logprobs) == token.tokens for token in tokens)
        return [entry.token for token in tokens for entry in token.logprobs]

    def answer(self, name: str, prompt: list[int], **sampling: Any) -> list[bytes]:
        self.start(name, prompt, **sampling)
        self.done(name)
        return self.bytes_of(name)


@functools.cache
def expected(family: str, prompt: int) -> list[bytes]:
    return [TABLE[i] for i in greedy(tiny_model(family), PROMPTS[prompt], MOST_TOKENS)]
