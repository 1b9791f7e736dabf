"""Token masks: what keeps an answer in the structure that was asked for, token by token.

For engines that choose tokens themselves. A mask is told each token that was chosen, and forbids
before the next one all that would break the structure.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from llguidance import LLMatcher, LLTokenizer

from inference.artefacts import load_manifest
from inference.engines.base import Calls, Structure
from inference.engines.schemas import schema_of
from inference.engines.stepping import RequestRefused
from inference.markers import REASONING_MARKS

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
        text = (artefact_dir / "tokenizer.json").read_text()
        self._special = _special_tokens(text)
        self._tokenizer = LLTokenizer(
            text,
            n_vocab=vocab_size or manifest.vocab_size,
            eos_token=list(manifest.eos_token_ids),
        )

    def mask(self, structure: Structure) -> "StructureMask":
        """The mask of one answer.

        Raises:
            RequestRefused: the structure's schema can't be compiled.
        """
        if structure.calls is not None:
            grammar = lark_of(structure.calls, self._special)
        else:
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


def _special_tokens(tokenizer: str) -> dict[str, int]:
    """The special tokens of a ``tokenizer.json``: no text of a grammar matches them."""
    added = msgspec.json.decode(tokenizer).get("added_tokens") or ()
    return {token["content"]: token["id"] for token in added if token.get("special")}


def lark_of(calls: Calls, special: Mapping[str, int]) -> str:
    """The grammar of calls in llguidance's dialect of Lark.

    Text stands before calls if they are not forced, up to the opener; an answer ends with them.
    """

    def literal(text: str) -> str:
        marks = "|".join(map(re.escape, sorted(special, key=len, reverse=True))) or "(?!)"
        parts = re.split(f"({marks})", text)
        return " ".join(
            f"<[{special[part]}]>" if part in special else json.dumps(part, ensure_ascii=False)
            for part in parts
            if part
        )

    rules = [
        f"call_{n}: {literal(tag.begin)} %json {tag.schema} {literal(tag.end)}"
        for n, tag in enumerate(calls.tags)
    ]
    rules.append("call: " + " | ".join(f"call_{n}" for n in range(len(calls.tags))))
    more = "" if calls.one else f"({literal(calls.between)} call)*"
    rules.append(f"calls: {literal(calls.first)} call {more} {literal(calls.after)}")
    if calls.forced:
        rules.append(f"start: {literal(calls.opener)} calls")
    else:
        rules += _free(calls, literal(calls.opener), special)
    return "\n".join(["%llguidance {}", *rules, ""])


def _free(calls: Calls, opener: str, special: Mapping[str, int]) -> list[str]:
    """The rules of an answer that may be text, calls, or text with calls behind it."""
    if not opener:
        # What begins with a brace is a call.
        return ["start: calls | OTHER", r"OTHER: /(\s*[^{\s](.|\n)*)?/"]
    marks = [f"<[{special[mark]}]>" for mark in sorted(REASONING_MARKS & special.keys())]
    before = f"(TEXT ({' | '.join(marks)}))*" if marks else ""
    # A mark that is no special token ends the text as soon as it is written.
    lead = f"lead: TEXT {opener}" if calls.opener in special else f"lead[lazy]: TEXT {opener}"
    return [f"start: {before} (TEXT | lead calls)", lead, r"TEXT: /(.|\n)*/"]
