"""What a waiting caller is shown: one claim's text, in order, without a gap, or an end."""

import asyncio
import math
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.base import Message
from inference.gateway.waiting import Waiter, WaitingRoom, watch
from inference.models.jobs import JobState
from inference.payloads import Prompt, pack_prompt, unpack_prompt
from inference.returns import End, Return, Text, decode_returns, encode_returns
from portal.core.ids import uuid7


def text(
    waiter: Waiter, offset: int, tokens: int = 1, *, fence: int = 1, words: str = "w "
) -> Text:
    return Text(waiter.job_id.bytes, fence, offset, tokens, words)


def end(waiter: Waiter, completion: int = 0, *, state: JobState = JobState.SUCCEEDED) -> End:
    return End(waiter.job_id.bytes, 1, state.value, "stop", 3, completion)


@pytest.fixture
def waiter() -> Waiter:
    return Waiter(uuid7())


def test_keeps_text_in_order(waiter: Waiter) -> None:
    first, second = text(waiter, 0, 2), text(waiter, 2, 3)
    waiter.put(first)
    waiter.put(second)
    waiter.put(end(waiter, 5))
    assert list(waiter.events)[:2] == [first, second]
    assert waiter.received == 5
    assert not waiter.broken


def test_drops_repeated_text(waiter: Waiter) -> None:
    waiter.put(text(waiter, 0, 2))
    waiter.put(text(waiter, 0, 2))
    assert (len(waiter.events), waiter.received, waiter.broken) == (1, 2, False)


def test_breaks_off_at_a_gap(waiter: Waiter) -> None:
    waiter.put(text(waiter, 0, 2))
    waiter.put(text(waiter, 3, 1))
    assert waiter.broken
    waiter.put(text(waiter, 2, 1))
    assert len(waiter.events) == 1


def test_drops_text_of_an_older_claim(waiter: Waiter) -> None:
    waiter.put(text(waiter, 0, 1, fence=2))
    waiter.put(text(waiter, 1, 1, fence=1))
    assert (waiter.received, waiter.broken) == (1, False)


def test_takes_text_of_a_later_claim_when_nothing_was_shown(waiter: Waiter) -> None:
    waiter.put(text(waiter, 0, 4, fence=3))
    assert (waiter.fence, waiter.received) == (3, 4)


def test_breaks_off_when_a_stream_that_was_seen_runs_again(waiter: Waiter) -> None:
    waiter.put(text(waiter, 0, 1, fence=1))
    waiter.put(text(waiter, 0, 1, fence=2))
    assert waiter.broken


def test_starts_over_when_a_whole_answer_runs_again() -> None:
    waiter = Waiter(uuid7(), stream=False)
    waiter.put(text(waiter, 0, 4, fence=1, words="lost"))
    waiter.put(text(waiter, 0, 3, fence=2, words="kept"))
    waiter.put(end(waiter, 3))
    assert [e.text for e in waiter.events if isinstance(e, Text)] == ["kept"]
    assert not waiter.broken


def test_asks_at_once_when_an_end_comes_whose_text_did_not(waiter: Waiter) -> None:
    waiter.put(text(waiter, 0, 2))
    waiter.put(end(waiter, 5))
    assert len(waiter.events) == 1
    assert waiter.heard_at == -math.inf
    assert not waiter.broken


def test_asks_at_once_when_an_end_comes_whose_vectors_did_not() -> None:
    waiter = Waiter(uuid7(), stream=False, wordless=True)
    waiter.put(end(waiter, 0))
    assert (len(waiter.events), waiter.heard_at) == (0, -math.inf)
    waiter.put(text(waiter, 0, 0, words="vectors"))
    # Whoever waits may have taken the text already.
    waiter.events.clear()
    waiter.put(end(waiter, 0))
    assert len(waiter.events) == 1


def test_takes_the_end_of_a_failure_whatever_has_arrived(waiter: Waiter) -> None:
    waiter.put(end(waiter, 9, state=JobState.FAILED))
    assert len(waiter.events) == 1


async def test_wakes_for_text_an_end_a_break_and_a_caller_who_left() -> None:
    room = WaitingRoom()
    causes: list[Callable[[Waiter], None]] = [
        lambda w: w.put(text(w, 0)),
        lambda w: w.put(end(w)),
        lambda w: w.break_off(),
        lambda w: w.hang_up(),
    ]
    for cause in causes:
        waiter = room.enter(uuid7())
        waiting = asyncio.create_task(waiter.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        cause(waiter)
        await asyncio.wait_for(waiting, 5)


async def test_notices_that_the_caller_goes_away_while_it_waits() -> None:
    waiter = Waiter(uuid7())
    gone = asyncio.Event()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    watching = watch(receive, waiter)
    gone.set()
    await asyncio.wait_for(waiter.wait(), 5)
    assert waiter.gone
    await watching


def test_gives_events_that_overtook_the_verdict_to_whom_they_belong() -> None:
    room, job = WaitingRoom(), uuid7()
    early: list[Return] = [Text(job.bytes, 1, 0, 2, "hello"), End(job.bytes, 1, 2, "stop", 1, 2)]
    room.deliver(early)
    waiter = room.enter(job)
    assert list(waiter.events) == early
    room.leave(waiter)
    assert list(room.enter(job).events) == []


def test_keeps_a_bounded_number_of_early_events() -> None:
    room = WaitingRoom()
    jobs = [uuid7() for _ in range(3000)]
    for job in jobs:
        room.deliver([Text(job.bytes, 1, 0, 1, "x")])
    assert not room.enter(jobs[0]).events
    assert room.enter(jobs[-1]).events


def test_lists_the_silent_and_no_one_who_just_heard_something() -> None:
    room = WaitingRoom()
    silent, heard = room.enter(uuid7()), room.enter(uuid7())
    for waiter in (silent, heard):
        waiter.heard_at -= 10
    heard.put(text(heard, 0))
    assert room.silent(5) == [silent]
    room.leave(silent)
    assert room.silent(5) == []
    assert len(room) == 1


pieces = st.lists(st.integers(1, 4), min_size=1, max_size=8)


@given(pieces, st.data())
def test_shows_a_prefix_of_one_run_whatever_the_order_of_arrival(
    sizes: list[int], data: st.DataObject
) -> None:
    waiter = Waiter(UUID(int=1))
    sent: list[Text] = []
    for fence in (1, 2):
        offset = 0
        for size in sizes:
            words = "".join(f"{fence}.{offset + n} " for n in range(size))
            sent.append(Text(waiter.job_id.bytes, fence, offset, size, words))
            offset += size
    arrivals = data.draw(st.lists(st.sampled_from(sent), max_size=24))
    for event in arrivals:
        waiter.put(event)
    shown = "".join(e.text for e in waiter.events if isinstance(e, Text)).split()
    assert shown == [f"{waiter.fence}.{n}" for n in range(len(shown))]


texts = st.builds(
    Text,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.text(),
)
ends = st.builds(
    End,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**31 - 1),
    st.sampled_from([state.value for state in JobState]),
    st.text(max_size=16),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.text(),
    st.text(),
)


@given(st.lists(texts | ends))
def test_decodes_the_events_that_were_encoded(events: list[Return]) -> None:
    assert decode_returns(encode_returns(events)) == events


@given(
    st.lists(st.integers(0, 2**32 - 1)),
    st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text())),
    st.lists(st.text()),
)
def test_unpacks_the_prompt_that_was_packed(
    ids: list[int], messages: list[Message], stop: list[str]
) -> None:
    prompt = Prompt(ids, tuple(messages), tuple(stop))
    assert unpack_prompt(pack_prompt(prompt)) == prompt
