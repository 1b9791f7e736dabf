"""Every item is answered once, in order, whatever its neighbours, callers or the commit do."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from portal.core.batching import NaturalBatcher

REQUEST: ContextVar[str] = ContextVar("request", default="none")


class Ledger:
    """A commit that is all or nothing, with bad items and a gate that holds it back."""

    def __init__(self, bad: frozenset[int] = frozenset(), refused: frozenset[int] = frozenset()):
        self.bad, self.refused = bad, refused
        self.tried: list[list[int]] = []
        self.kept: list[int] = []
        self.running = self.most_running = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def commit(self, items: Sequence[int]) -> list[str | Exception]:
        self.tried.append(list(items))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.entered.set()
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            if self.bad.intersection(items):
                raise ValueError(f"bad row among {list(items)}")
            self.kept += items
            return [KeyError(i) if i in self.refused else f"done {i}" for i in items]
        finally:
            self.running -= 1


async def _gathered(batcher: NaturalBatcher[int, str], items: Sequence[int]) -> list[Any]:
    return await asyncio.gather(*map(batcher.submit, items), return_exceptions=True)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    if request.param == "asyncio":
        return asyncio.run

    def on_uvloop(main: Any) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)

    return on_uvloop


def test_submit_alone_is_committed_at_once(run: Callable[..., Any]) -> None:
    async def main() -> None:
        ledger = Ledger()
        batcher = NaturalBatcher(ledger.commit)
        assert await batcher.submit(1) == "done 1"
        assert await batcher.submit(2) == "done 2"
        assert ledger.tried == [[1], [2]]

    run(main())


def test_submit_during_a_commit_shares_the_next_one(run: Callable[..., Any]) -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.gate.clear()
        batcher = NaturalBatcher(ledger.commit, size=lambda waiting: 3)
        first = batcher.submit(0)
        await ledger.entered.wait()
        later = [batcher.submit(item) for item in range(1, 9)]
        ledger.gate.set()
        assert await first == "done 0"
        assert await asyncio.gather(*later) == [f"done {item}" for item in range(1, 9)]
        assert ledger.tried == [[0], [1, 2, 3], [4, 5, 6], [7, 8]]
        assert ledger.most_running == 1

    run(main())


def test_submit_after_a_busy_batch_waits_for_company(run: Callable[..., Any]) -> None:
    async def main() -> None:
        ledger = Ledger()
        batcher = NaturalBatcher(ledger.commit)
        await _gathered(batcher, range(5))
        first = batcher.submit(10)
        # Several turns of the loop: an eager batcher would have committed the first alone.
        for _ in range(4):
            await asyncio.sleep(0)
        second = batcher.submit(11)
        await asyncio.gather(first, second)
        assert ledger.tried == [[0, 1, 2, 3, 4], [10, 11]]

    run(main())


def test_submit_after_a_small_batch_does_not_wait(run: Callable[..., Any]) -> None:
    async def main() -> None:
        ledger = Ledger()
        batcher = NaturalBatcher(ledger.commit)
        await _gathered(batcher, range(4))
        first = batcher.submit(10)
        ledger.entered.clear()
        for _ in range(3):
            await asyncio.sleep(0)
        assert ledger.entered.is_set()
        await first

    run(main())


def test_commit_that_raises_fails_the_bad_item_alone(run: Callable[..., Any]) -> None:
    async def main() -> None:
        ledger = Ledger(bad=frozenset({2}))
        results = await _gathered(NaturalBatcher(ledger.commit), range(4))
        assert results[:2] + results[3:] == ["done 0", "done 1", "done 3"]
        assert str(results[2]) == "bad row among [2]"
        assert ledger.tried == [[0, 1, 2, 3], [0], [1], [2], [3]]
        assert ledger.kept == [0, 1, 3]

    run(main())


async def test_commit_that_raises_for_a_single_item_is_not_retried() -> None:
    ledger = Ledger(bad=frozenset({7}))
    with pytest.raises(ValueError, match="bad row"):
        await NaturalBatcher(ledger.commit).submit(7)
    assert ledger.tried == [[7]]


async def test_commit_that_raises_for_all_fails_all_at_once_where_told_so() -> None:
    ledger = Ledger(bad=frozenset({2}))
    batcher = NaturalBatcher(ledger.commit, retry_singly=lambda fault: False)
    results = await _gathered(batcher, range(3))
    assert [type(result) for result in results] == [ValueError] * 3
    assert ledger.tried == [[0, 1, 2]]


async def test_commit_that_answers_too_little_fails_all_and_is_not_repeated() -> None:
    tried: list[Sequence[int]] = []

    async def commit(items: Sequence[int]) -> list[str | Exception]:
        tried.append(items)
        return ["only one"]

    results = await _gathered(NaturalBatcher(commit), [1, 2])
    assert [str(result) for result in results] == ["the commit answered 1 of 2 items"] * 2
    assert len(tried) == 1


async def test_cancel_caller_leaves_the_batch_whole() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    batcher = NaturalBatcher(ledger.commit)
    running, waiting = batcher.submit(1), batcher.submit(2)
    await ledger.entered.wait()
    queued, last = batcher.submit(3), batcher.submit(4)
    running.cancel()
    queued.cancel()
    ledger.gate.set()
    assert (await waiting, await last) == ("done 2", "done 4")
    assert ledger.kept == [1, 2, 3, 4]


async def test_cancel_commit_from_within_cancels_its_callers_and_serves_the_next() -> None:
    async def commit(items: Sequence[int]) -> list[str | Exception]:
        if 1 in items:
            raise asyncio.CancelledError
        return ["done" for _ in items]

    batcher = NaturalBatcher(commit)
    lost = await asyncio.wait_for(_gathered(batcher, [1, 2]), 5)
    assert [type(result) for result in lost] == [asyncio.CancelledError] * 2
    assert await asyncio.wait_for(batcher.submit(3), 5) == "done"


async def test_cancel_everything_before_the_first_turn_loses_no_caller() -> None:
    batcher = NaturalBatcher(Ledger().commit)
    before = asyncio.all_tasks()
    future = batcher.submit(1)
    for runner in asyncio.all_tasks() - before:
        runner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(future, 5)
    assert await asyncio.wait_for(batcher.submit(2), 5) == "done 2"


async def test_commit_runs_in_no_callers_context() -> None:
    seen = []

    async def commit(items: Sequence[int]) -> list[str | Exception]:
        seen.append(REQUEST.get())
        return ["done" for _ in items]

    REQUEST.set("mine")
    await NaturalBatcher(commit).submit(1)
    assert seen == ["none"]


def test_close_answers_what_was_handed_in_and_refuses_more(run: Callable[..., Any]) -> None:
    async def main() -> None:
        ledger = Ledger()
        ledger.gate.clear()
        batcher = NaturalBatcher(ledger.commit, size=lambda waiting: 6)
        futures = [batcher.submit(item) for item in range(20)]
        closing = asyncio.create_task(batcher.close())
        await ledger.entered.wait()
        with pytest.raises(RuntimeError, match="closed"):
            batcher.submit(99)
        assert not closing.done()
        ledger.gate.set()
        await closing
        assert [future.result() for future in futures] == [f"done {item}" for item in range(20)]
        await batcher.close()

    run(main())


async def test_close_unused_batcher_returns() -> None:
    await NaturalBatcher(Ledger().commit).close()


async def test_submit_sizes_each_batch_by_how_many_wait() -> None:
    ledger = Ledger()
    batcher = NaturalBatcher(ledger.commit, size=lambda waiting: waiting // 2)
    await _gathered(batcher, range(9))
    assert [len(batch) for batch in ledger.tried] == [4, 2, 1, 1, 1]


STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), min_size=1, max_size=12
)


@given(
    steps=STEPS,
    max_batch=st.integers(1, 7),
    bad=st.frozensets(st.integers(0, 60)),
    refused=st.frozensets(st.integers(0, 60)),
)
def test_submit_in_any_pattern_answers_each_item_as_its_own(
    steps: list[tuple[int, int, bool]], max_batch: int, bad: frozenset[int], refused: frozenset[int]
) -> None:
    """Each step submits some items, maybe cancels the last, then lets the loop turn."""

    async def main() -> None:
        ledger = Ledger(bad, refused)
        batcher = NaturalBatcher(ledger.commit, size=lambda waiting: max_batch)
        futures: list[asyncio.Future[str]] = []
        for count, turns, cancel in steps:
            futures += [batcher.submit(len(futures) + offset) for offset in range(count)]
            if cancel and futures:
                futures[-1].cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
        await asyncio.wait_for(batcher.close(), 20)
        assert ledger.kept == [item for item in range(len(futures)) if item not in bad]
        assert ledger.most_running <= 1
        assert all(len(batch) <= max_batch for batch in ledger.tried)
        for item, future in enumerate(futures):
            assert future.done()
            with contextlib.suppress(asyncio.CancelledError):
                _check(item, future, bad, refused)

    asyncio.run(main())


def _check(
    item: int, future: "asyncio.Future[str]", bad: frozenset[int], refused: frozenset[int]
) -> None:
    fault = future.exception()
    if item in bad:
        assert str(fault) == f"bad row among [{item}]"
    elif item in refused:
        assert isinstance(fault, KeyError)
        assert fault.args == (item,)
    else:
        assert future.result() == f"done {item}"
