"""Answers that are more than one text: several choices, or with log probabilities.

One that is told in one piece, or kept, is a JSON document of its choices in the place of the
text: so all that carries a text carries it too.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from inference.engines.base import TokenLogprob


class ChoiceAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One choice, whole; ``reason`` is its finish reason."""

    text: str = ""
    reason: str = "stop"
    logprobs: tuple[TokenLogprob, ...] = ()


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[ChoiceAnswer]).decode


def encode_choices(choices: Sequence[ChoiceAnswer]) -> str:
    """The document of an answer."""
    return _encode(choices).decode()


def decode_choices(document: str, n: int) -> list[ChoiceAnswer]:
    """The choices in a document; empty ones where nothing was generated."""
    return _decode(document) if document else [ChoiceAnswer()] * n
