"""What the official client reads from an answer is what was put into it."""

import json

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai import OpenAI
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inference.gateway.wire.common import FinishReason, Usage
from inference.gateway.wire.response import (
    DONE,
    ChunkEncoder,
    ModelInfo,
    completion,
    model_object,
    models_list,
)

TEXT = st.text(st.characters(codec="utf-8"))
REASONS: st.SearchStrategy[FinishReason] = st.sampled_from(("stop", "length"))


def encoder(*, include_usage: bool = False) -> ChunkEncoder:
    return ChunkEncoder(
        completion_id="chatcmpl-1",
        created=1_700_000_000,
        model='m"\\',
        include_usage=include_usage,
        system_fingerprint="fp_1",
    )


def chunk(event: bytes) -> ChatCompletionChunk:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    return ChatCompletionChunk.model_validate_json(event[6:-2])


def client(answer: bytes, media_type: str = "application/json") -> OpenAI:
    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=answer, headers={"content-type": media_type})

    transport = httpx2.MockTransport(handle)
    return OpenAI(
        api_key="k", base_url="http://test/v1", http_client=httpx2.Client(transport=transport)
    )


@given(TEXT, REASONS, st.integers(0, 2**40), st.integers(0, 2**40))
def test_encode_completion_is_read_back_equal(
    text: str, reason: FinishReason, prompt: int, answer: int
) -> None:
    raw = completion(
        completion_id="chatcmpl-1",
        created=5,
        model="m",
        text=text,
        finish_reason=reason,
        usage=Usage(prompt, answer),
    )
    read = ChatCompletion.model_validate_json(raw)
    assert (read.id, read.created, read.model, read.system_fingerprint) == (
        "chatcmpl-1",
        5,
        "m",
        None,
    )
    assert len(read.choices) == 1
    assert read.choices[0].message.role == "assistant"
    assert read.choices[0].message.content == text
    assert read.choices[0].finish_reason == reason
    assert read.usage is not None
    assert (read.usage.prompt_tokens, read.usage.completion_tokens) == (prompt, answer)
    assert read.usage.total_tokens == prompt + answer


@given(TEXT)
@example("a\u0085b\u2028c\u2029d\r\n")
def test_encode_content_chunk_is_one_line_and_read_back_equal(text: str) -> None:
    event = encoder().content(text)
    read = chunk(event)
    assert read.choices[0].delta.content == text
    assert read.choices[0].finish_reason is None
    # The strictest reader of lines sees the event and the blank line after it.
    assert len(event.decode().splitlines()) == 2


def test_encode_lone_surrogate_becomes_a_replacement_character() -> None:
    assert chunk(encoder().content("a\ud800\u2028b")).choices[0].delta.content == "a\ufffd\u2028b"


@pytest.mark.parametrize("include_usage", [True, False])
def test_encode_usage_is_null_on_other_chunks_only_if_asked(include_usage: bool) -> None:
    stream = encoder(include_usage=include_usage)
    for event in (stream.first(), stream.content("x"), stream.final("stop")):
        fields = json.loads(event[6:])
        assert ("usage" in fields) is include_usage
        assert fields.get("usage") is None


@given(st.lists(TEXT, max_size=5), REASONS)
def test_encode_stream_is_read_by_the_official_client(
    pieces: list[str], reason: FinishReason
) -> None:
    stream = encoder(include_usage=True)
    answer = b"".join(
        [
            stream.first(),
            *map(stream.content, pieces),
            stream.final(reason),
            stream.usage(Usage(3, 4)),
            DONE,
        ]
    )
    chunks = list(
        client(answer, "text/event-stream").chat.completions.create(
            model="m", messages=[], stream=True, stream_options={"include_usage": True}
        )
    )
    assert {(c.id, c.created, c.model, c.object, c.system_fingerprint) for c in chunks} == {
        ("chatcmpl-1", 1_700_000_000, 'm"\\', "chat.completion.chunk", "fp_1")
    }
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks[1:-2]] == pieces
    assert chunks[-2].choices[0].finish_reason == reason
    assert chunks[-2].choices[0].delta.content is None
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 7


def test_list_models_is_read_by_the_official_client() -> None:
    infos = [ModelInfo("a", 1, "tenant-a"), ModelInfo("b", 2, "tenant-a")]
    read = list(client(models_list(infos)).models.list())
    assert [(m.id, m.created, m.owned_by) for m in read] == [
        ("a", 1, "tenant-a"),
        ("b", 2, "tenant-a"),
    ]


def test_show_model_is_read_back_equal() -> None:
    read = Model.model_validate_json(model_object(ModelInfo("a", 1, "tenant-a")))
    assert (read.id, read.object, read.created, read.owned_by) == ("a", "model", 1, "tenant-a")
