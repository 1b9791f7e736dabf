"""Masks that hold answers to calls of tools, followed by a model that knows nothing."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from tokenizers import Tokenizer

from inference.artefacts import load_manifest
from inference.engines.base import Structure
from inference.engines.grammar import Grammars, StructureMask
from inference.markers import DEEPSEEK_CALLS
from tests.inference.engines.call_forms import FORMS, check_calls, held
from tests.inference.tooled import HERMES, tooled_artefact

MOST_TOKENS = 2000
EACH_FORM = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token a byte; the marks of some forms are control tokens, of others text."""
    return tooled_artefact(tmp_path_factory.mktemp("store"), HERMES)[1]


@pytest.fixture(scope="module")
def grammars(artefact: Path) -> Grammars:
    return Grammars(artefact)


@pytest.fixture(scope="module")
def tokenizer(artefact: Path) -> Tokenizer:
    return Tokenizer.from_file(str(artefact / "tokenizer.json"))


def mask_of(grammars: Grammars, form: str, *, forced: bool, one: bool = False) -> StructureMask:
    return grammars.mask(Structure("calls", calls=held(form, forced=forced, one=one)))


def write(mask: StructureMask, artefact: Path, tokenizer: Tokenizer, seed: int) -> str:
    """What a random choice among the allowed tokens writes, that rarely breaks a line."""
    manifest, random = load_manifest(artefact), Random(seed)
    ids: list[int] = []
    for _ in range(MOST_TOKENS):
        row = np.zeros(manifest.vocab_size, dtype=np.float32)
        mask.mask(row)
        ends = set(manifest.eos_token_ids)
        allowed = [int(i) for i in np.flatnonzero(np.isfinite(row)) if i not in ends]
        if mask.complete and (not allowed or random.random() < 0.5):
            return str(tokenizer.decode(ids, skip_special_tokens=False))
        dark = [i for i in allowed if tokenizer.decode([i], skip_special_tokens=False).strip()]
        chosen = random.choice(dark if dark and random.random() < 0.95 else allowed)
        mask.accept(chosen)
        ids.append(chosen)
    raise AssertionError("it never ends")


def accepts(mask: StructureMask, artefact: Path, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the text may be written, up to its end."""
    size = load_manifest(artefact).vocab_size
    for token in tokenizer.encode(text, add_special_tokens=False).ids:
        row = np.zeros(size, dtype=np.float32)
        mask.mask(row)
        if not np.isfinite(row[token]):
            return False
        mask.accept(token)
    return mask.complete


@EACH_FORM
def test_follow_a_forced_mask_ends_in_calls_that_are_read_and_valid(
    grammars: Grammars, artefact: Path, tokenizer: Tokenizer, form: str
) -> None:
    counts = set()
    for seed in range(12):
        text = write(mask_of(grammars, form, forced=True), artefact, tokenizer, seed)
        counts.add(check_calls(form, text))
    assert min(counts) == 1
    # A model of Llama's kind calls once at a time.
    assert (max(counts) > 1) == (form != "llama")


@EACH_FORM
def test_follow_a_mask_of_one_call_ends_in_one(
    grammars: Grammars, artefact: Path, tokenizer: Tokenizer, form: str
) -> None:
    for seed in range(4):
        mask = mask_of(grammars, form, forced=True, one=True)
        assert check_calls(form, write(mask, artefact, tokenizer, seed)) == 1


@EACH_FORM
def test_answer_that_is_free_may_be_text_or_calls_and_no_wrong_call(
    grammars: Grammars, artefact: Path, tokenizer: Tokenizer, form: str
) -> None:
    call = write(mask_of(grammars, form, forced=True), artefact, tokenizer, 1)
    before = "" if form == "llama" else "Let me look: <b>\n"
    for text, allowed in [
        ("It is warm, <b>I think</b> {so}.\n", True),
        ("", True),
        (before + call, True),
        (before + call.replace("get_", "set_"), False),
        (before + call.replace("{", "{0", 1 if "name" not in call else 2), False),
    ]:
        mask = mask_of(grammars, form, forced=False)
        assert accepts(mask, artefact, tokenizer, text) == allowed, text


def test_forced_answer_begins_with_the_mark_itself(
    grammars: Grammars, artefact: Path, tokenizer: Tokenizer
) -> None:
    row = np.zeros(load_manifest(artefact).vocab_size, dtype=np.float32)
    mask_of(grammars, "deepseek", forced=True).mask(row)
    # A control token that is spelt out by other tokens is none to the model.
    assert list(np.flatnonzero(np.isfinite(row))) == [tokenizer.token_to_id(DEEPSEEK_CALLS)]
