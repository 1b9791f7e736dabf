"""Token masks of the shipped model's tokenizer, followed by a model that knows nothing."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.artefacts import import_gguf, load_manifest, shipped_gguf
from inference.engines.base import Structure
from inference.engines.grammar import Grammars
from inference.engines.schemas import checked_schema
from inference.engines.stepping import RequestRefused
from tests.inference.engines.schema_strategies import check_answer, schemas

MOST_TOKENS = 80


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    manifest = import_gguf(
        shipped_gguf(), store, name="SmolLM2", licence="Apache-2.0", provenance="test"
    )
    return store / manifest.id


@pytest.fixture(scope="module")
def grammars(artefact: Path) -> Grammars:
    return Grammars(artefact)


@pytest.fixture(scope="module")
def tokenizer(artefact: Path) -> Tokenizer:
    return Tokenizer.from_file(str(artefact / "tokenizer.json"))


def structure_of(schema: Any) -> Structure:
    return Structure("json_schema", checked_schema(json.dumps(schema), "response_format"))


def written(
    grammars: Grammars, artefact: Path, structure: Structure, tokenizer: Tokenizer, seed: int
) -> str | None:
    """What a random choice among the allowed tokens writes; None if it never ends."""
    manifest = load_manifest(artefact)
    random, mask = Random(seed), grammars.mask(structure)
    ids: list[int] = []
    for _ in range(MOST_TOKENS):
        row = np.zeros(manifest.vocab_size, dtype=np.float32)
        mask.mask(row)
        allowed = np.flatnonzero(np.isfinite(row))
        ends = [i for i in manifest.eos_token_ids if np.isfinite(row[i])]
        assert bool(ends) == mask.complete
        if ends:
            mask.accept(ends[0])
            return str(tokenizer.decode(ids))
        chosen = int(random.choice(allowed))
        mask.accept(chosen)
        ids.append(chosen)
    return None


@given(schemas(), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_follow_a_mask_whatever_the_schema_ends_in_what_validates(
    grammars: Grammars, artefact: Path, tokenizer: Tokenizer, schema: Any, seed: int
) -> None:
    text = written(grammars, artefact, structure_of(schema), tokenizer, seed)
    if text is not None:
        check_answer(text, schema)


def test_follow_a_mask_of_any_object_begins_with_a_brace(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    row = np.zeros(tokenizer.get_vocab_size(), dtype=np.float32)
    grammars.mask(Structure("json_object")).mask(row)
    allowed = [tokenizer.decode([int(i)]).strip() for i in np.flatnonzero(np.isfinite(row))]
    assert {text[:1] for text in allowed} <= {"{", ""}


def test_mask_a_torch_row_as_a_numpy_row(grammars: Grammars, tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size() + 5
    row, tensor = np.zeros(size, dtype=np.float32), torch.zeros(size)
    grammars.mask(Structure("json_object")).mask(row)
    grammars.mask(Structure("json_object")).mask(tensor)
    assert np.array_equal(row, tensor.numpy())
    # What the tokenizer does not know is never chosen.
    assert not np.isfinite(row[-5:]).any()


def test_accept_a_token_that_breaks_the_structure_is_refused(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    mask = grammars.mask(structure_of({"type": "integer"}))
    with pytest.raises(RequestRefused):
        mask.accept(tokenizer.encode("hello").ids[0])


def test_mask_of_a_schema_that_cannot_be_compiled_is_refused(grammars: Grammars) -> None:
    with pytest.raises(RequestRefused):
        grammars.mask(Structure("json_schema", '{"type":"nonsense"}'))
