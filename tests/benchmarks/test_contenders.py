"""Engines as the benchmarks drive them."""

from typing import Any

from benchmarks.lib.engines.contenders import OurEngine
from inference.engines.base import Done, GenerationRequest


class AtOnce:
    """Answers before ``submit`` returns, which real engines may as well."""

    def __init__(self, emit: Any) -> None:
        self._emit = emit
        self.asked: list[list[int]] = []

    def load(self) -> None:
        """Nothing to load."""

    def submit(self, request: GenerationRequest) -> None:
        self.asked.append(list(request.prompt_ids))
        tokens = request.sampling.max_tokens
        self._emit([Done(request.id, "length", len(request.prompt_ids), tokens)])


def test_run_answers_every_prompt_once_however_early_answers_come() -> None:
    made: list[AtOnce] = []

    def make(emit: Any) -> AtOnce:
        made.append(AtOnce(emit))
        return made[0]

    engine = OurEngine(make)
    prompts = [[number] for number in range(5)]
    for concurrency in (1, 3, 5, 8):
        assert engine.run(prompts, 7, concurrency) == 35
        assert sorted(made[0].asked) == prompts
        made[0].asked.clear()
