"""Token masks: what keeps an answer in the structure that was asked for, token by token.

For engines that choose tokens themselves. A mask is told each token that was chosen, and forbids
before the next one all that would break the structure.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from inference.artefacts import load_manifest
from inference.engines.base import Structure
from inference.engines.schemas import schema_of
from inference.engines.stepping import RequestRefused

_NOTHING: Final = float("-inf")


class Grammars:
    """Makes the masks of one artefact; its tokenizer is read once.

    Args:
        artefact_dir: an imported artefact with a tokenizer.
        vocab_size: length of a row of logits, where it is not the manifest's.

    Raises:
        RequestRefused: the model has no end of text.
    """

    def __init__(self, artefact_dir: Path, *, vocab_size: int | None = None) -> None:
        manifest = load_manifest(artefact_dir)
        if not manifest.eos_token_ids:
            raise RequestRefused(
                "The model has no token that ends a text, so no answer can be held to a structure."
            )
        self._tokenizer = LLTokenizer(
            (artefact_dir / "tokenizer.json").read_text(),
            n_vocab=vocab_size or manifest.vocab_size,
            eos_token=list(manifest.eos_token_ids),
        )

    def mask(self, structure: Structure) -> "StructureMask":
        """The mask of one answer.

        Raises:
            RequestRefused: the structure's schema can't be compiled.
        """
        grammar = LLMatcher.grammar_from_json_schema(schema_of(structure))
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise RequestRefused(f"The schema can't be compiled: {matcher.get_error()[:200]}")
        return StructureMask(matcher)


class StructureMask:
    """One answer's mask; the end of text is allowed exactly where the answer is whole."""

    __slots__ = ("_matcher",)

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self, logits_row: Any) -> None:
        """Sets each token that would break the structure to minus infinity, in place.

        Args:
            logits_row: a NumPy array, or a torch tensor on any device, of one dimension.
        """
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(packed, bitorder="little")[: len(logits_row)].astype(bool)
        forbidden = np.ones(len(logits_row), dtype=bool)
        forbidden[: len(allowed)] = ~allowed
        if isinstance(logits_row, np.ndarray):
            logits_row[forbidden] = _NOTHING
            return
        import torch

        logits_row.masked_fill_(torch.from_numpy(forbidden).to(logits_row.device), _NOTHING)

    def accept(self, token_id: int) -> None:
        """Takes note of the token that was chosen.

        Raises:
            RequestRefused: it breaks the structure, or the structure is too large to go on.
        """
        if not self._matcher.consume_token(token_id):
            raise RequestRefused(
                f"The answer left its structure: {self._matcher.get_error()[:200]}"
            )

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return self._matcher.is_accepting()
