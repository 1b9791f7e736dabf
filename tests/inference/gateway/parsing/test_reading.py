"""What models write, read as reasoning, text and calls."""

import json
import string
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.gateway.parsing.deltas import (
    Answer,
    Call,
    CallArguments,
    CallBroken,
    CallStart,
    Reasoning,
    Text,
)
from inference.gateway.parsing.formats import FORMATS
from inference.gateway.parsing.reading import AnswerReader, Reading, read_whole
from inference.gateway.parsing.scan import JsonScan
from inference.markers import (
    DEEPSEEK_CALL,
    DEEPSEEK_CALL_END,
    DEEPSEEK_CALLS,
    DEEPSEEK_CALLS_END,
    DEEPSEEK_SEPARATOR,
    REASONING_MARKS,
    TOOL_MARKS,
)

JOB = "0123456789abcdef"
Calls = list[tuple[str, dict[str, Any]]]


def hermes(calls: Calls) -> str:
    blocks = (json.dumps({"name": n, "arguments": a}, ensure_ascii=False) for n, a in calls)
    return "".join(f"\n<tool_call>\n{block}\n</tool_call>" for block in blocks)


def deepseek_v3(calls: Calls) -> str:
    blocks = (
        f"{DEEPSEEK_CALL}function{DEEPSEEK_SEPARATOR}{n}\n```json\n{json.dumps(a, indent=1)}\n```"
        f"{DEEPSEEK_CALL_END}"
        for n, a in calls
    )
    return DEEPSEEK_CALLS + "\n".join(blocks) + DEEPSEEK_CALLS_END


def deepseek_v31(calls: Calls) -> str:
    blocks = (
        f"{DEEPSEEK_CALL}{n}{DEEPSEEK_SEPARATOR}{json.dumps(a)}{DEEPSEEK_CALL_END}"
        for n, a in calls
    )
    return DEEPSEEK_CALLS + "".join(blocks) + DEEPSEEK_CALLS_END


def llama(calls: Calls) -> str:
    return "; ".join(json.dumps({"name": n, "parameters": a}) for n, a in calls)


def llama_tagged(calls: Calls) -> str:
    return "<|python_tag|>" + llama(calls)


def mistral(calls: Calls) -> str:
    return "[TOOL_CALLS] " + json.dumps([{"name": n, "arguments": a, "id": "a1"} for n, a in calls])


def mistral_named(calls: Calls) -> str:
    return "".join(f"[TOOL_CALLS]{n}[ARGS]{json.dumps(a)}" for n, a in calls)


WRITERS = {
    "hermes": ("hermes", hermes),
    "deepseek v3": ("deepseek", deepseek_v3),
    "deepseek v3.1": ("deepseek", deepseek_v31),
    "llama": ("llama", llama),
    "llama, tagged": ("llama", llama_tagged),
    "mistral": ("mistral", mistral),
    "mistral, named": ("mistral", mistral_named),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["</tool_call>", "```", '"}', "]", *TOOL_MARKS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip
NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(st.text(max_size=5), JSON, max_size=3)),
                 min_size=1, max_size=3)  # fmt: skip
# What a model may write of all this, in any order.
SCRAPS = st.lists(
    st.sampled_from(
        [
            *TOOL_MARKS, *REASONING_MARKS, "function", "get", "\n```json\n", "\n```", "{", "}", "[",
            "]", ",", ";", ":", '"', " ", "\n", '{"name": "get", "arguments": {', '"a": 1}}',
            '{"name": "get", "parameters": {}}', '{"arguments": {"b": [2]}, "name": "put"}',
            '"arguments": {"q": tru', "\\", "e", "<tool", "_call>", "[TOOL", "_CALLS]", "</thi",
        ]
    )
    | st.text(max_size=4),
    max_size=14,
).map("".join)  # fmt: skip
READINGS = st.builds(
    Reading,
    tools=st.sampled_from(["", *FORMATS]),
    thinking=st.sampled_from(["", "maybe", "open"]),
    one_call=st.booleans(),
)


def streamed(reading: Reading, pieces: list[str]) -> Answer:
    """What a client has that joins a stream's deltas, after the end."""
    reader = AnswerReader(reading, JOB)
    text, reasoning, starts, arguments = "", "", {}, {}
    deltas = [d for piece in pieces for d in reader.push(piece)] + reader.finish()
    for delta in deltas:
        if isinstance(delta, Text):
            text += delta.text
        elif isinstance(delta, Reasoning):
            reasoning += delta.text
        elif isinstance(delta, CallStart):
            assert delta.index not in starts
            starts[delta.index], arguments[delta.index] = delta, ""
        elif isinstance(delta, CallArguments):
            assert delta.fragment
            arguments[delta.index] += delta.fragment
        else:
            assert isinstance(delta, CallBroken)
            assert arguments[delta.index] in delta.raw
            text += delta.raw
            del starts[delta.index]
    calls = tuple(Call(s.id, s.name, arguments[i]) for i, s in starts.items())
    assert reader.called == bool(calls)
    assert reader.reasoning == reasoning
    return Answer(text, reasoning, calls)


def said(answer: Answer) -> Calls:
    return [(call.name, json.loads(call.arguments)) for call in answer.calls]


@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)
@given(calls=CALLS)
def test_read_calls_gives_what_was_written(name: str, write: Any, calls: Calls) -> None:
    answer = read_whole(Reading(name), JOB, write(calls))
    assert said(answer) == calls
    assert (answer.text, answer.reasoning) == ("", "")
    assert len({call.id for call in answer.calls}) == len(calls)


@given(reading=READINGS, text=SCRAPS, data=st.data())
@example(Reading("hermes"), hermes([("f", {"a": "</tool_call>"})]), None)
def test_read_any_text_in_any_pieces_gives_what_the_whole_gives(
    reading: Reading, text: str, data: Any
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) if data else range(len(text)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    whole = read_whole(reading, JOB, text)
    assert streamed(reading, pieces) == whole
    assert len(whole.calls) <= 1 or not reading.one_call
    for call in whole.calls:
        assert isinstance(json.loads(call.arguments), dict)


@given(text=SCRAPS)
def test_read_text_without_marks_changes_nothing(text: str) -> None:
    assert read_whole(Reading(), JOB, text) == Answer(text)
    for mark in (*TOOL_MARKS, *REASONING_MARKS, "{"):
        text = text.replace(mark, "")
    if not any(mark in text for mark in (*TOOL_MARKS, *REASONING_MARKS, "{")):
        for name in FORMATS:
            assert read_whole(Reading(name), JOB, text).text == text


def test_stream_a_call_tells_its_name_before_its_arguments_have_ended() -> None:
    reader = AnswerReader(Reading("hermes"), JOB)
    assert reader.push("Well. <tool") == [Text("Well.")]
    assert reader.push('_call>{"name": "get", "arg') == []
    (start, first) = reader.push('uments": {"city": "Par')
    assert isinstance(start, CallStart)
    assert (start.index, start.name) == (0, "get")
    assert first == CallArguments(0, '{"city": "Par')
    assert reader.push('is"}') == [CallArguments(0, 'is"}')]
    made = [reader.called]
    assert reader.push("}\n</tool_call>") == []
    assert [*made, reader.called] == [False, True]
    assert reader.finish() == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>{"name": "get", "arguments": {"a": tru!}}</tool_call> bye'),
        ("hermes", '<tool_call>{"name": "get", "arguments": {"a": 1'),
        ("hermes", '<tool_call>{"city": "Paris"}</tool_call>'),
        ("hermes", '<tool_call>{"name": "get", "arguments": [1]}</tool_call>'),
        ("hermes", "<tool_call>get(1)</tool_call>"),
        ("hermes", '<tool_call>{"name": "a b", "arguments": {}}</tool_call>'),
        ("hermes", '{"name": "get", "arguments": {}}'),
        ("llama", '{"name": "Ada", "born": 1815}'),
        ("llama", '{"name": "Ada"}'),
        ("llama", 'As said: {"name": "get", "parameters": {}}'),
        ("llama", '<|python_tag|>search.call(query="x")'),
        ("mistral", "[TOOL_CALLS] nothing"),
        ("deepseek", f"{DEEPSEEK_CALL}get{DEEPSEEK_SEPARATOR}{{]"),
    ],
)
def test_read_what_is_no_call_stays_text(name: str, text: str) -> None:
    assert read_whole(Reading(name), JOB, text) == Answer(text)


def test_read_a_broken_call_beside_a_good_one_keeps_the_good_one() -> None:
    text = '<tool_call>{"name": "a", "arguments": {x</tool_call>' + hermes([("b", {"n": 1})])
    answer = read_whole(Reading("hermes"), JOB, text)
    assert said(answer) == [("b", {"n": 1})]
    assert answer.text == '<tool_call>{"name": "a", "arguments": {x</tool_call>'


def test_read_one_call_drops_the_others() -> None:
    text = hermes([("a", {}), ("b", {})]) + "!"
    answer = read_whole(Reading("hermes", one_call=True), JOB, text)
    assert (said(answer), answer.text) == ([("a", {})], "\n!")


def test_read_arguments_that_are_a_text_gives_the_object_in_it() -> None:
    text = '<tool_call>{"name": "a", "arguments": "{\\"b\\": 1}"}</tool_call>'
    assert said(read_whole(Reading("hermes"), JOB, text)) == [("a", {"b": 1})]


def test_read_calls_of_mistral_have_ids_that_its_template_takes() -> None:
    (call,) = read_whole(Reading("mistral"), JOB, mistral([("a", {})])).calls
    assert len(call.id) == 9
    assert call.id.isalnum()


@pytest.mark.parametrize(
    ("thinking", "text", "reasoning", "answer"),
    [
        ("open", "\nI see.\n</think>\n\nYes.", "I see.", "Yes."),
        ("open", "<think>\nI see.\n</think>\n\nYes.", "I see.", "Yes."),
        ("open", "I never stop \n", "I never stop", ""),
        ("open", "</think>Yes.", "", "Yes."),
        ("maybe", "<think>I see.</think>Yes. <think>", "I see.", "Yes. <think>"),
        ("maybe", "\n<think>\n\n</think>\n\nYes.", "", "Yes."),
        ("maybe", "Yes: <think>no</think>", "", "Yes: <think>no</think>"),
        ("maybe", "<thin", "", "<thin"),
        ("", "<think>I see.</think>Yes.", "", "<think>I see.</think>Yes."),
    ],
)
def test_read_reasoning_apart_from_the_answer(
    thinking: Any, text: str, reasoning: str, answer: str
) -> None:
    reading = Reading(thinking=thinking)
    assert read_whole(reading, JOB, text) == Answer(answer, reasoning)
    assert streamed(reading, list(text)) == Answer(answer, reasoning)


def test_read_calls_that_the_model_only_thinks_of_are_none() -> None:
    text = f"maybe{hermes([('a', {})])}</think>{hermes([('b', {})])}"
    answer = read_whole(Reading("hermes", "open"), JOB, text)
    assert said(answer) == [("b", {})]
    assert "<tool_call>" in answer.reasoning


def scanned(text: str) -> tuple[bool, int]:
    """Whether a scan has read a whole object, and how many characters it took."""
    scan = JsonScan()
    for number, char in enumerate(text):
        if scan.done or not scan.feed(char):
            return scan.done, number
    return scan.done, len(text)


@given(value=st.dictionaries(st.text(), JSON), indent=st.sampled_from([None, 2]))
def test_scan_json_takes_every_object_to_its_end(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert scanned(text + "x") == (True, len(text))


@given(
    st.lists(
        st.sampled_from('{}[]:,"\\ eE+-.0159truefalsn/bu')
        | st.sampled_from(["true", "null", '"a"', '{"a":', "1e5", "-0", "01", "\\u00e9"]),
        max_size=10,
    ).map("".join)
)
def test_scan_json_agrees_with_the_parser_of_python(text: str) -> None:
    text = '{"k":' + text
    done, taken = scanned(text)
    try:
        json.loads(text)
    except ValueError:
        assert not done or taken < len(text)
    else:
        assert (done, taken) == (True, len(text))


def test_scan_json_too_deep_is_refused() -> None:
    assert scanned('{"a":' * 63 + "{}" + "}" * 63)[0]
    assert not scanned('{"a":' * 64 + "{}" + "}" * 64)[0]
