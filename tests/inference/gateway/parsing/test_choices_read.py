"""Answers of several choices are read one by one."""

from inference.choices import ChoiceAnswer
from inference.engines.base import TokenLogprob
from inference.gateway.parsing.reading import Reading
from inference.gateway.reads import read_choices

CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def test_read_choices_that_differ_gives_each_what_is_its_own() -> None:
    told = (TokenLogprob(b"x", -1.0),)
    answers = [
        ChoiceAnswer(f"<think>Hm.</think>{CALL}"),
        ChoiceAnswer("<think>Well.</think>No.", logprobs=told),
        ChoiceAnswer(f"<think>So.</think>{CALL}{CALL[:20]}", reason="length"),
    ]
    called, said, cut = read_choices(Reading("hermes", "maybe"), "job", answers)
    assert (called.reason, called.reasoning, called.text) == ("tool_calls", "Hm.", "")
    assert (said.reason, said.reasoning, said.text, said.calls) == ("stop", "Well.", "No.", ())
    assert (said.logprobs, called.logprobs) == (told, ())
    # An answer that was cut says so, and the call that it began stays text.
    assert (cut.reason, cut.text, len(cut.calls)) == ("length", CALL[:20], 1)
    assert called.calls[0].id != cut.calls[0].id


def test_read_choices_without_a_reading_leaves_their_texts() -> None:
    (one,) = read_choices(None, "job", [ChoiceAnswer(CALL)])
    assert (one.text, one.calls, one.reason) == (CALL, (), "stop")
