"""Greedy answers, and where they part."""

import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from inference.artefacts import load_manifest
from inference.engines.base import Done, Event, Failed, GenerationRequest, Sampling, Token
from inference.engines.text import TokenBytes
from inference.engines.torch_batch.engine import TorchBatchEngine
from inference.engines.torch_batch.loading import load_model

Answer = Sequence[bytes]
"""The bytes of each token: they are what engines tell of a token."""
_PATIENCE_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Divergence:
    """Answers to the same prompts beside each other.

    Args:
        answers: how many were compared.
        firsts: the place of the first differing token, from 0, of each answer that differs.
        tokens: of an answer.
    """

    answers: int
    firsts: tuple[int, ...]
    tokens: int

    @property
    def share(self) -> float:
        """Of the answers, 0 to 1, those that differ anywhere."""
        return len(self.firsts) / self.answers

    @property
    def median_first(self) -> float:
        """The median place of the first difference, where there is one; the end where not."""
        return statistics.median(self.firsts) if self.firsts else float(self.tokens)

    @property
    def per_token(self) -> float:
        """Differences for each token up to the first: what one more token adds to the share."""
        compared = sum(self.firsts) + len(self.firsts)
        compared += (self.answers - len(self.firsts)) * self.tokens
        return len(self.firsts) / compared


def divergence(some: Sequence[Answer], others: Sequence[Answer]) -> Divergence:
    """Compares answers pair by pair; all have the same length."""
    firsts = []
    for one, other in zip(some, others, strict=True):
        places = (n for n, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        firsts += [place for place in [next(places, None)] if place is not None]
    return Divergence(len(some), tuple(firsts), len(some[0]))


def generated(
    artefact: Path, prompts: Sequence[list[int]], tokens: int, *, dtype: Any, device: str
) -> list[Answer]:
    """What transformers' ``generate`` answers, one prompt after another."""
    model: Any = load_model(artefact, device=torch.device(device), dtype=dtype)
    table = TokenBytes(Tokenizer.from_file(str(artefact / "tokenizer.json")))
    ends = list(load_manifest(artefact).eos_token_ids) or None
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=device)
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                eos_token_id=ends,
                pad_token_id=0,
            )
        answers.append([table[token] for token in made[0, len(prompt) :].tolist()])
    return answers


def served(
    artefact: Path,
    prompts: Sequence[list[int]],
    tokens: int,
    *,
    dtype: str,
    device: str,
    at_once: int,
) -> list[Answer]:
    """What ``torch_batch`` answers to so many prompts at once."""
    answers: list[list[bytes]] = [[] for _ in prompts]
    ended = threading.Condition()
    left, faults = len(prompts), []

    def emit(events: Sequence[Event]) -> None:
        nonlocal left
        for event in events:
            if isinstance(event, Token):
                answers[int(event.request_id)] += [entry.token for entry in event.logprobs]
            if isinstance(event, Failed):
                faults.append(event.message)
            if isinstance(event, Done | Failed):
                with ended:
                    left -= 1
                    ended.notify_all()

    engine = TorchBatchEngine(
        artefact_dir=artefact,
        context_length=max(map(len, prompts)) + tokens,
        options={"device": device, "dtype": dtype, "slots": at_once, "prefix_cache_mb": 0},
        emit=emit,
    )
    engine.load()
    sampling = Sampling(max_tokens=tokens, min_tokens=tokens, temperature=0.0, logprobs=0)
    try:
        for number, prompt in enumerate(prompts):
            engine.submit(GenerationRequest(str(number), prompt, (), sampling))
        with ended:
            if not ended.wait_for(lambda: left == 0, _PATIENCE_S):
                raise SystemExit("The engine did not answer in an hour.")
    finally:
        engine.close()
    if faults:
        raise SystemExit(f"The engine failed: {faults[0]}")
    return list(answers)
