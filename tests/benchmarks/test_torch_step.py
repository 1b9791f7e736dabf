"""The bound that a step's products set."""

import pytest

from benchmarks.torch_step import Measured


def test_bound_counts_the_products_of_answers_and_of_their_prompts() -> None:
    # 10 ms a token of an answer among 8, and 5 ms a token of a prompt: 48 and 40 of them.
    measured = Measured({8: 0.08, 256: 1.28}, {8: 0.1}, {8: {"products": 0.8}})
    assert measured.bound(8) == pytest.approx(48 / (48 * 0.01 + 40 * 0.005))
    assert measured.figures()["8"] == {
        "products_tokens_s": 100.0,
        "step_tokens_s": 80.0,
        "bound_tokens_s": 70.6,
        "shares": {"products": 0.8},
    }
