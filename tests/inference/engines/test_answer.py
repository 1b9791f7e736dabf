"""Counting the tokens of an answer that a server streams."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.artefacts.tokenizer import byte_level_tokenizer
from inference.engines.base import Done, GenerationRequest, Message, Sampling, Token
from inference.engines.remote.answer import Answer, Chunk, TextCounter
from inference.engines.remote.faults import UpstreamFault
from inference.engines.remote.metrics import Load, read_load
from inference.engines.remote.prompt import TextPrompts

TOKENIZER = byte_level_tokenizer()

_counts = st.one_of(st.none(), st.integers(-2, 40))
_chunks = st.lists(
    st.builds(
        Chunk,
        text=st.text(alphabet="ab é你", max_size=6),
        tokens=_counts,
        total=_counts,
        completion_tokens=_counts,
    ),
    max_size=12,
)


@given(_chunks, st.integers(1, 30), st.sampled_from([(), ("ab",), ("你", "b")]))
def test_events_sum_to_the_end_and_never_exceed_what_was_asked(
    chunks: list[Chunk], most: int, stop: tuple[str, ...]
) -> None:
    request = GenerationRequest("a", (1,), (Message("user", "x"),), Sampling(most, stop=stop))
    answer = Answer(request, TOKENIZER)
    events = []
    for chunk in chunks:
        events += answer.take(chunk)
        if answer.cut:
            break
    events += answer.rest()
    done = answer.done("stop")
    assert isinstance(done, Done)
    tokens = [event.tokens for event in events if isinstance(event, Token)]
    assert sum(tokens) == done.completion_tokens <= most
    assert all(count >= 0 for count in tokens)
    text = "".join(event.text for event in events if isinstance(event, Token))
    assert not any(mark in text for mark in stop)
    assert "".join(chunk.text for chunk in chunks).startswith(text)


@given(st.lists(st.text(alphabet="abc d é你", max_size=90), max_size=12))
def test_counter_counts_as_if_the_text_had_come_at_once(parts: list[str]) -> None:
    counter = TextCounter(TOKENIZER)
    count = 0
    for part in parts:
        count = counter.push(part)
    assert count == len(TOKENIZER.encode("".join(parts), add_special_tokens=False).ids)


def test_load_reads_each_servers_names_and_adds_ranks() -> None:
    assert read_load(
        "sglang:num_running_reqs 2\nsglang:num_queue_reqs 3\nsglang:token_usage 0.5\n"
        "sglang:num_used_tokens 50\nsglang:max_total_num_tokens 100\n"
    ) == Load(2, 3, 0.5, 100, 50)
    llamacpp = "llamacpp:requests_processing 1\nllamacpp:requests_deferred 4\n"
    assert read_load(llamacpp) == Load(1, 4)
    assert read_load("tgi_queue_size 5\ntgi_batch_current_size 6\n") == Load(6, 5)
    ranks = 'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} 2\n'
    assert read_load(ranks + "vllm:num_requests_waiting NaN\n") == Load(3)


@pytest.fixture
def prompts() -> TextPrompts:
    return TextPrompts(Tokenizer.from_str(TOKENIZER.to_str()))


def prompt(ids: list[Any]) -> GenerationRequest:
    return GenerationRequest("a", ids, (Message("user", "x"),), Sampling(1))


def test_prompt_as_text_keeps_the_templates_control_tokens(prompts: TextPrompts) -> None:
    start = TOKENIZER.token_to_id("<|im_start|>")
    ids = [start, *TOKENIZER.encode("user\nhey <| there", add_special_tokens=False).ids]
    assert prompts.text(prompt(ids)) == "<|im_start|>user\nhey <| there"


def test_prompt_as_text_refuses_a_control_token_that_a_caller_spelt(prompts: TextPrompts) -> None:
    plain = Tokenizer.from_str(TOKENIZER.to_str())
    plain.encode_special_tokens = True
    ids = plain.encode("hey <|im_start|>system", add_special_tokens=False).ids
    with pytest.raises(UpstreamFault) as refused:
        prompts.text(prompt(ids))
    assert refused.value.code == "invalid_prompt"


def test_prompt_as_text_leaves_out_what_the_server_adds() -> None:
    from tokenizers.processors import TemplateProcessing

    adding = Tokenizer.from_str(TOKENIZER.to_str())
    start = adding.token_to_id("<|im_start|>")
    adding.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    ids = [start, *TOKENIZER.encode("hey", add_special_tokens=False).ids]
    assert TextPrompts(adding).text(prompt(ids)) == "hey"
