"""Several engine requests as one: whatever their order, one terminal event and one sum."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.base import (
    Done,
    EngineClosed,
    Event,
    Failed,
    GenerationRequest,
    Sampling,
    Token,
)
from inference.worker.choices import ChoiceDone, Choices, ChoiceToken

JOB = "job:1"


class Engine:
    """Takes requests down, and refuses them from some number on."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.submitted: list[GenerationRequest] = []
        self.cancelled: list[str] = []

    def submit(self, request: GenerationRequest) -> None:
        if len(self.submitted) >= self.most:
            raise EngineClosed("It takes no more.")
        self.submitted.append(request)

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)


def engine_of(most: int) -> Any:
    """What stands in for an engine: of its methods only these two are called."""
    return Engine(most)


class Joined:
    """Choices before an engine, and what came of them."""

    def __init__(self, n: int, *, most: int = 100, seed: int | None = None) -> None:
        self.engine = engine_of(most)
        self.events: list[Event] = []
        self.choices = Choices(self.events.extend)
        sampling = Sampling(max_tokens=9, seed=seed)
        self.choices.submit(self.engine, GenerationRequest(JOB, (1, 2), (), sampling), n)

    def emit(self, *events: Event) -> None:
        self.choices.emit(events)

    def ends(self) -> list[Event]:
        return [e for e in self.events if not isinstance(e, Token | ChoiceDone)]


def test_submit_one_choice_passes_as_it_is() -> None:
    joined = Joined(1, seed=5)
    assert [r.id for r in joined.engine.submitted] == [JOB]
    events: Sequence[Event] = [Token(JOB, "a", 1), Done(JOB, "stop", 2, 1)]
    joined.emit(*events)
    assert joined.events == events


def test_submit_several_gives_each_its_own_seed() -> None:
    seeded, free = Joined(3, seed=5), Joined(3)
    assert [r.sampling.seed for r in seeded.engine.submitted] == [5, 6, 7]
    assert [r.sampling.seed for r in free.engine.submitted] == [None] * 3
    assert len({r.id for r in free.engine.submitted}) == 3


def test_submit_that_is_refused_midway_leaves_none_running() -> None:
    joined = Joined.__new__(Joined)
    joined.engine, joined.events = engine_of(2), []
    joined.choices = Choices(joined.events.extend)
    with pytest.raises(EngineClosed):
        request = GenerationRequest(JOB, (1,), (), Sampling(max_tokens=9))
        joined.choices.submit(joined.engine, request, 3)
    assert {r.id for r in joined.engine.submitted} <= set(joined.engine.cancelled)
    joined.emit(*(Done(r.id, "cancelled", 1, 0) for r in joined.engine.submitted))
    assert [e for e in joined.events if e.request_id == JOB] == []


_SCRIPTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["stop", "length", "failed", "cancelled"])),
    min_size=2,
    max_size=4,
)


@given(_SCRIPTS, st.integers(0, 2**32))
def test_join_any_order_ends_once_with_the_sum(scripts: list[tuple[int, str]], seed: int) -> None:
    joined = Joined(len(scripts))
    ids = [r.id for r in joined.engine.submitted]
    turns = [choice for choice, (texts, _) in enumerate(scripts) for _ in range(texts + 1)]
    Random(seed).shuffle(turns)
    said, tokens, over = [0] * len(scripts), 0, False
    for choice in turns:
        texts, ending = scripts[choice]
        if said[choice] < texts:
            joined.emit(Token(ids[choice], "x", 2))
            said[choice] += 1
            tokens += 0 if over else 2
        elif ending == "failed":
            joined.emit(Failed(ids[choice], "engine_failed", "It failed."))
            over = True
        else:
            reason: Any = ending
            joined.emit(Done(ids[choice], reason, 2, 2 * texts))
            over = over or ending == "cancelled"
    (end,) = joined.ends()
    assert end.request_id == JOB
    assert joined.events[-1] is end
    told = [e for e in joined.events if isinstance(e, ChoiceToken)]
    assert sum(e.tokens for e in told) == tokens
    if isinstance(end, Done) and end.reason != "cancelled":
        assert end.completion_tokens == tokens
        reasons = [e.reason for e in joined.events if isinstance(e, ChoiceDone)]
        assert end.reason == ("length" if "length" in reasons else "stop")
        assert len(reasons) == len(scripts)


def test_fail_of_one_choice_cancels_the_others() -> None:
    joined = Joined(3)
    first, *others = (r.id for r in joined.engine.submitted)
    joined.emit(Failed(first, "request_refused", "No."))
    assert joined.engine.cancelled == others


def test_cancel_reaches_every_choice_that_runs() -> None:
    joined = Joined(3)
    first, *others = (r.id for r in joined.engine.submitted)
    joined.emit(Done(first, "stop", 2, 0))
    joined.choices.cancel(joined.engine, JOB)
    assert joined.engine.cancelled == others
