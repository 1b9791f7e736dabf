"""How torch_batch chooses tokens, without a model."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engines.base import Sampling
from inference.engines.torch_batch.sampling import NOTHING, Draws, SamplingPlan
from tests.inference.engines.device import DEVICE


def sampling(**fields: Any) -> Sampling:
    return Sampling(**({"max_tokens": 8, "temperature": 0.0} | fields))


def choose(
    rows: list[list[float]],
    samplings: list[Sampling],
    *,
    eos: tuple[int, ...] = (),
    generated: int = 0,
    draws: list[Draws] | None = None,
) -> list[int]:
    ids, _, faults = SamplingPlan(samplings, eos, DEVICE).choose(
        torch.tensor(rows, device=DEVICE),
        generated=[generated] * len(rows),
        draws=draws or [Draws(n) for n in range(len(rows))],
        masks=[None] * len(rows),
    )
    assert not faults
    return ids


def frequencies(row: list[float], count: int = 4000, **fields: Any) -> list[float]:
    """How often each id is drawn."""
    ids = choose([row] * count, [sampling(**({"temperature": 1.0} | fields))] * count)
    return [ids.count(token_id) / count for token_id in range(len(row))]


def shares(row: list[float], temperature: float = 1.0) -> list[float]:
    whole: list[float] = torch.tensor(row).div(temperature).softmax(-1).tolist()
    return whole


ROW = [0.0, 2.0, -1.0, 1.0, 1.5]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draw_follows_the_softmax_of_the_temperature(temperature: float) -> None:
    assert frequencies(ROW, temperature=temperature) == pytest.approx(
        shares(ROW, temperature), abs=0.03
    )


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 4, 3]),
        ({"top_k": 50}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.4}, [1]),
        ({"top_p": 0.5}, [1, 4]),
        ({"top_p": 0.8}, [1, 4, 3]),
        # Of the two likeliest the first has 62 %.
        ({"top_k": 2, "top_p": 0.6}, [1]),
        ({"top_k": 2, "top_p": 0.7}, [1, 4]),
    ],
)
def test_draw_keeps_the_likeliest_in_their_proportions(
    fields: dict[str, Any], kept: list[int]
) -> None:
    whole = shares(ROW)
    total = sum(whole[token_id] for token_id in kept)
    wanted = [whole[n] / total if n in kept else 0.0 for n in range(len(ROW))]
    drawn = frequencies(ROW, **fields)
    assert drawn == pytest.approx(wanted, abs=0.03)
    assert [n for n, share in enumerate(drawn) if share] == sorted(kept)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    vocabulary=st.sampled_from((3, 40, 700)),
    top_p=st.sampled_from((1e-6, 0.3, 0.9, 0.999, 1.0)),
    top_k=st.sampled_from((0, 1, 7, 300, 5000)),
)
def test_draw_in_a_mixed_batch_takes_only_what_each_row_keeps(
    data: st.DataObject, vocabulary: int, top_p: float, top_k: int
) -> None:
    seed = data.draw(st.integers(0, 1000))
    rows = torch.randn((4, vocabulary), generator=torch.Generator().manual_seed(seed))
    mixed = [
        sampling(temperature=1.0, top_p=top_p, top_k=top_k),
        sampling(),
        sampling(temperature=1.0),
        sampling(temperature=1.0, top_p=0.5),
    ]
    ids = choose(rows.tolist(), mixed, draws=[Draws(seed + n) for n in range(4)])
    for row, token_id, wanted in zip(rows, ids, mixed, strict=True):
        likeliest = row.argsort(descending=True).tolist()
        assert token_id in likeliest[: wanted.top_k or vocabulary]
        if wanted.temperature == 0:
            assert token_id == likeliest[0]
        bounded = row[likeliest[: wanted.top_k or vocabulary]].softmax(-1)
        before = float(bounded[: likeliest.index(token_id)].sum())
        assert before < wanted.top_p + 1e-5


def test_draw_with_a_seed_is_repeatable_and_its_own() -> None:
    flat = [[0.0] * 50]
    warm = [sampling(temperature=1.0)]

    def several(seed: int | None) -> list[int]:
        draws = Draws(seed)
        return [choose(flat, warm, draws=[draws])[0] for _ in range(100)]

    assert several(5) == several(5) != several(6)
    assert several(None) != several(None)
    assert len(set(several(5))) > 20


def test_choose_greedily_where_temperature_or_top_p_is_zero() -> None:
    rows = [ROW, ROW, ROW]
    assert choose(
        rows,
        [sampling(), sampling(temperature=1.0, top_p=0.0), sampling(temperature=1e-30)],
    ) == [1, 1, 1]


def test_end_of_text_is_held_until_the_least_tokens() -> None:
    wanted = [sampling(min_tokens=3), sampling(min_tokens=0)]
    assert choose([ROW, ROW], wanted, eos=(1, 4), generated=2) == [3, 1]
    assert choose([ROW, ROW], wanted, eos=(1, 4), generated=3) == [1, 1]


def test_end_of_text_is_taken_early_where_nothing_else_is_left() -> None:
    only = [-math.inf, 0.5, -math.inf]
    assert choose([only], [sampling(min_tokens=3)], eos=(1,)) == [1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_row_without_finite_numbers_gives_nothing_and_harms_no_other(bad: float) -> None:
    rows = [ROW, [0.0, bad, 0.0, 0.0, 0.0], [-math.inf] * 5, ROW]
    for temperature in (0.0, 1.0):
        ids = choose(rows, [sampling(temperature=temperature, top_k=1)] * 4)
        assert ids == [1, NOTHING, NOTHING, 1]
