"""Measures how much of a model is left after quantization."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from portal.core.errors import Invalid

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says at each place of a text.

    Args:
        likeliest: token ids ``[places]``.
        loss: mean negative log-likelihood of the text's own tokens, in nats.
    """

    likeliest: Tensor
    loss: float

    @property
    def perplexity(self) -> float:
        """e to the loss."""
        return math.exp(self.loss)


def text_digest(text: str) -> str:
    """SHA-256 of a text, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def windows(ids: Sequence[int], *, length: int) -> list[Tensor]:
    """A text's tokens in pieces of ``length``; each piece is read by itself.

    Raises:
        Invalid: fewer than two tokens, so that there is nothing to predict.
    """
    pieces = [torch.tensor([ids[i : i + length]]) for i in range(0, len(ids), length)]
    pieces = [piece for piece in pieces if piece.shape[1] > 1]
    if not pieces:
        raise Invalid("The text is too short to measure anything with.", param="text")
    return pieces


@torch.inference_mode()
def read(model: nn.Module, pieces: Sequence[Tensor], progress: Progress) -> Answers:
    """A model's answers to each place of the pieces but the last."""
    likeliest, total, places = [], 0.0, 0
    for number, piece in enumerate(pieces, 1):
        logits = model(input_ids=piece, use_cache=False).logits[0, :-1].float()
        total += float(functional.cross_entropy(logits, piece[0, 1:], reduction="sum"))
        likeliest.append(logits.argmax(-1))
        places += logits.shape[0]
        progress(f"read {places} tokens, piece {number} of {len(pieces)}")
    return Answers(torch.cat(likeliest), total / places)


def agreement(one: Answers, other: Answers) -> float:
    """Share of places, 0 to 1, where both find the same token likeliest."""
    return float((one.likeliest == other.likeliest).float().mean())
