"""What the official clients read from the answers of the newer APIs is what was put into them."""

import json
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.gateway.wire import errors
from inference.gateway.wire.common import Dialect, Ending, Opening, Usage
from inference.gateway.wire.completions import CompletionsDialect
from inference.gateway.wire.message_style import ANTHROPIC, error_type
from inference.gateway.wire.messages import MessagesDialect
from inference.gateway.wire.responses import ResponsesDialect
from portal.core.errors import PortalError

COMPLETIONS, RESPONSES, MESSAGES = CompletionsDialect(), ResponsesDialect(), MessagesDialect()
LEAST: dict[Any, dict[str, Any]] = {
    COMPLETIONS: {"model": "m", "prompt": "Hello"},
    RESPONSES: {"model": "m", "input": "Hello"},
    MESSAGES: {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
}
TEXT = st.text(st.characters(codec="utf-8"))


@dataclass
class Replay:
    """Answers every request of both clients with what it was last given."""

    answer: bytes = b""
    kind: str = "application/json"

    def __call__(self, _: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": self.kind}
        return httpx2.Response(200, content=self.answer, headers=headers)


REPLAY = Replay()
_HTTP = httpx2.Client(transport=httpx2.MockTransport(REPLAY))
_OPENAI = openai.OpenAI(api_key="k", base_url="http://test/v1", http_client=_HTTP)
_ANTHROPIC = anthropic.Anthropic(api_key="k", base_url="http://test", http_client=_HTTP)


def client(answer: bytes, kind: str = "application/json", *, claude: bool = False) -> Any:
    """An official client to whom this is answered."""
    REPLAY.answer, REPLAY.kind = answer, kind
    return _ANTHROPIC if claude else _OPENAI


def opened(dialect: Dialect, **fields: Any) -> Opening:
    request = dialect.parse(json.dumps(LEAST[dialect] | fields).encode())
    return Opening("0123", 1_700_000_000, 3, request)


ENDINGS = st.builds(
    Ending,
    st.sampled_from(["stop", "length"]),
    st.builds(Usage, st.integers(0, 2**40), st.integers(0, 2**40)),
    st.none() | TEXT.filter(bool),
)


@given(TEXT, ENDINGS)
@settings(deadline=None)
def test_encode_whole_answers_are_read_back_equal(text: str, ending: Ending) -> None:
    used = (ending.usage.prompt_tokens, ending.usage.completion_tokens)
    length = ending.reason == "length"
    raw = COMPLETIONS.whole(opened(COMPLETIONS), text, ending)
    completion = client(raw).completions.create(model="m", prompt="")
    assert (completion.id, completion.object) == ("cmpl-0123", "text_completion")
    assert completion.choices[0].text == text
    assert completion.choices[0].finish_reason == ending.reason
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == used

    # A caller's metadata can't hold what a model's text can.
    label = text.replace("\x00", "")[:9]
    raw = RESPONSES.whole(opened(RESPONSES, metadata={"a": label}), text, ending)
    response = client(raw).responses.create(model="m", input="")
    assert (response.id, response.output_text) == ("resp_0123", text)
    assert response.metadata == {"a": label}
    assert response.status == ("incomplete" if length else "completed")
    assert (response.usage.input_tokens, response.usage.output_tokens) == used
    assert response.usage.total_tokens == sum(used)

    raw = MESSAGES.whole(opened(MESSAGES), text, ending)
    message = client(raw, claude=True).messages.create(model="m", messages=[], max_tokens=1)
    assert (message.id, message.content[0].text) == ("msg_0123", text)
    stopped = "end_turn" if ending.stop is None else "stop_sequence"
    assert message.stop_reason == ("max_tokens" if length else stopped)
    assert message.stop_sequence == (None if length else ending.stop)
    assert (message.usage.input_tokens, message.usage.output_tokens) == used


def streamed(dialect: Dialect, pieces: list[str], ending: Ending, **fields: Any) -> bytes:
    encoder = dialect.stream(opened(dialect, stream=True, **fields))
    return b"".join([encoder.first(), *map(encoder.content, pieces), encoder.end(ending)])


@settings(deadline=None)
@given(st.lists(TEXT, max_size=5), ENDINGS)
@example(["a\u0085b\u2028c\u2029d\r\n"], Ending("stop", Usage(1, 2), "\u2028"))
def test_encode_streams_are_read_by_the_official_clients(pieces: list[str], ending: Ending) -> None:
    text = "".join(pieces)
    kind = "text/event-stream"
    raw = streamed(COMPLETIONS, pieces, ending, stream_options={"include_usage": True})
    chunks = list(client(raw, kind).completions.create(model="m", prompt="", stream=True))
    assert [c.choices[0].text for c in chunks[:-2]] == pieces
    assert chunks[-2].choices[0].finish_reason == ending.reason
    assert chunks[-1].usage.total_tokens == sum(
        (ending.usage.prompt_tokens, ending.usage.completion_tokens)
    )
    assert len(raw.decode().splitlines()) == 2 * (len(chunks) + 1)

    raw = streamed(RESPONSES, pieces, ending, instructions="\u2028" + text.replace("\0", ""))
    events = list(client(raw, kind).responses.create(model="m", input="", stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[-1].type.endswith("incomplete" if ending.reason == "length" else "completed")
    assert events[-1].response.output_text == text
    assert len(raw.decode().splitlines()) == 3 * len(events)

    raw = streamed(MESSAGES, pieces, ending)
    with client(raw, kind, claude=True).messages.stream(
        model="m", messages=[], max_tokens=1
    ) as stream:
        message = stream.get_final_message()
    assert message.content[0].text == text
    assert message.usage.output_tokens == ending.usage.completion_tokens
    whole = json.loads(MESSAGES.whole(opened(MESSAGES), text, ending))
    assert (message.stop_reason, message.stop_sequence) == (
        whole["stop_reason"],
        whole["stop_sequence"],
    )
    assert len(raw.decode().splitlines()) == 3 * raw.count(b"event: ")


def test_encode_usage_of_a_completion_only_if_asked() -> None:
    raw = streamed(COMPLETIONS, ["a"], Ending("stop", Usage(1, 2)))
    assert b"usage" not in raw
    assert raw.endswith(b"data: [DONE]\n\n")


def broken(dialect: Dialect) -> bytes:
    encoder = dialect.stream(opened(dialect, stream=True))
    error = errors.unavailable()
    return encoder.first() + encoder.content("Hel") + encoder.error(error, "req-1")


def test_encode_failure_of_a_completion_that_has_begun_raises_in_the_client() -> None:
    raw = broken(COMPLETIONS)
    assert b"[DONE]" not in raw
    chunks = client(raw, "text/event-stream").completions.create(model="m", prompt="", stream=True)
    assert next(chunks).choices[0].text == "Hel"
    with pytest.raises(openai.APIError) as caught:
        next(chunks)
    assert caught.value.code == "service_unavailable"


def test_encode_failure_of_a_response_that_has_begun_ends_it_as_failed() -> None:
    made = client(broken(RESPONSES), "text/event-stream")
    *_, error, failed = made.responses.create(model="m", input="", stream=True)
    assert (error.type, error.code) == ("error", "service_unavailable")
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert failed.response.error.code == "server_error"
    assert failed.response.output_text == "Hel"
    assert failed.sequence_number == error.sequence_number + 1


def test_encode_failure_of_a_message_that_has_begun_raises_in_the_client() -> None:
    made = client(broken(MESSAGES), "text/event-stream", claude=True)
    events = made.messages.create(model="m", messages=[], max_tokens=1, stream=True)
    seen: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as caught:
        seen.extend(event.type for event in events)
    assert seen[-1] == "content_block_delta"
    assert (caught.value.type, caught.value.error_code) == (
        "overloaded_error",
        "service_unavailable",
    )


@pytest.mark.parametrize(
    ("error", "status", "kind", "raised"),
    [
        (errors.invalid_api_key(), 401, "authentication_error", anthropic.AuthenticationError),
        (
            PortalError("x", code="network_not_allowed", status=403),
            403,
            "permission_error",
            anthropic.PermissionDeniedError,
        ),
        (errors.model_not_found("m"), 404, "not_found_error", anthropic.NotFoundError),
        (errors.body_too_large(9), 413, "request_too_large", anthropic.ContentTooLargeError),
        (
            errors.unsupported_media_type(),
            415,
            "invalid_request_error",
            anthropic.APIStatusError,
        ),
        (
            errors.too_many_at_once(scope="API key", maximum=1),
            429,
            "rate_limit_error",
            anthropic.RateLimitError,
        ),
        (errors.server_error(), 500, "api_error", anthropic.InternalServerError),
        (errors.unavailable(), 529, "overloaded_error", anthropic.OverloadedError),
    ],
)
def test_raise_error_in_anthropics_client_keeps_every_field(
    error: PortalError, status: int, kind: str, raised: type[anthropic.APIStatusError]
) -> None:
    assert (ANTHROPIC.status(error), error_type(error)) == (status, kind)

    def handle(_: httpx2.Request) -> httpx2.Response:
        headers = [(b"content-type", b"application/json"), *ANTHROPIC.head("req-1")]
        content = ANTHROPIC.error_body(error, "req-1")
        return httpx2.Response(status, content=content, headers=headers)

    made = anthropic.Anthropic(
        api_key="k",
        base_url="http://test",
        max_retries=0,
        http_client=httpx2.Client(transport=httpx2.MockTransport(handle)),
    )
    with pytest.raises(raised) as caught:
        made.models.list()
    assert type(caught.value) is raised
    assert caught.value.type == kind
    assert (caught.value.api_message, caught.value.request_id) == (error.message, "req-1")
    assert caught.value.error_code == errors.error_code(error)
