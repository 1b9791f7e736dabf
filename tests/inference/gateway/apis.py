"""One call in each API of ``/v1``, by its official client, sync and async."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import openai

Clients = openai.OpenAI | openai.AsyncOpenAI | anthropic.Anthropic | anthropic.AsyncAnthropic

QUESTION = "What is the way from the engine to the reader?"


@dataclass(frozen=True, slots=True)
class Said:
    """What a client read of an answer."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    ended: str


@dataclass(frozen=True, slots=True)
class Api:
    """One API: how its client asks, and how its answers are read.

    ``body`` asks for ``max_tokens`` tokens; ``create`` sends it, with changes, and gives what the
    client gives; ``whole`` and ``streamed`` read that.
    """

    name: str
    path: str
    action: str
    maker: Callable[..., Any]
    async_maker: Callable[..., Any]
    body: Callable[[int], dict[str, Any]]
    create: Callable[..., Any]
    whole: Callable[[Any], Said]
    streamed: Callable[[list[Any]], Said]
    errors: Any
    ended: tuple[str, str]

    @contextmanager
    def client(self, base_url: str, token: str, **options: Any) -> Iterator[Any]:
        """The official client, as its users make it."""
        with self.maker(**self._options(base_url, token, options)) as client:
            yield client

    @asynccontextmanager
    async def async_client(self, base_url: str, token: str, **options: Any) -> AsyncIterator[Any]:
        async with self.async_maker(**self._options(base_url, token, options)) as client:
            yield client

    def _options(self, base_url: str, token: str, options: dict[str, Any]) -> dict[str, Any]:
        root = base_url if self.errors is anthropic else f"{base_url}/v1"
        return {"base_url": root, "api_key": token, "max_retries": 0, **options}

    def ask(self, client: Any, max_tokens: int = 7, **changes: Any) -> Said:
        """A whole answer."""
        return self.whole(self.create(client)(**{**self.body(max_tokens), **changes}))

    def stream(self, client: Any, max_tokens: int = 7, **changes: Any) -> Said:
        """A streamed answer."""
        body = {**self.body(max_tokens), "stream": True, **changes}
        return self.streamed(list(self.create(client)(**body)))

    async def ask_async(self, client: Any, *, stream: bool) -> Said:
        answer = self.create(client)(**{**self.body(7), "stream": stream})
        assert inspect.isawaitable(answer)
        answer = await answer
        return self.streamed([event async for event in answer]) if stream else self.whole(answer)


def _chat_whole(answer: Any) -> Said:
    (choice,) = answer.choices
    return Said(
        choice.message.content,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        choice.finish_reason,
    )


def _chat_streamed(chunks: list[Any]) -> Said:
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    (ended,) = [
        c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason
    ]
    usage = chunks[-1].usage
    return Said(text, usage.prompt_tokens, usage.completion_tokens, ended)


def _completion_whole(answer: Any) -> Said:
    (choice,) = answer.choices
    return Said(
        choice.text,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        choice.finish_reason,
    )


def _completion_streamed(chunks: list[Any]) -> Said:
    text = "".join(c.choices[0].text for c in chunks if c.choices)
    (ended,) = [
        c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason
    ]
    usage = chunks[-1].usage
    return Said(text, usage.prompt_tokens, usage.completion_tokens, ended)


def _response_whole(answer: Any) -> Said:
    usage = answer.usage
    return Said(answer.output_text, usage.input_tokens, usage.output_tokens, answer.status)


def _response_streamed(events: list[Any]) -> Said:
    assert [e.sequence_number for e in events] == list(range(len(events)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    said = _response_whole(events[-1].response)
    assert said.text == text
    return said


def _message_whole(answer: Any) -> Said:
    (block,) = answer.content
    usage = answer.usage
    return Said(block.text, usage.input_tokens, usage.output_tokens, answer.stop_reason)


def _message_streamed(events: list[Any]) -> Said:
    text = "".join(e.delta.text for e in events if e.type == "content_block_delta")
    (delta,) = [e for e in events if e.type == "message_delta"]
    started = events[0].message.usage.input_tokens
    assert started == delta.usage.input_tokens
    return Said(text, started, delta.usage.output_tokens, delta.delta.stop_reason)


def _with_usage(create: Callable[..., Any]) -> Callable[..., Any]:
    def ask(**body: Any) -> Any:
        if body.get("stream"):
            body = {"stream_options": {"include_usage": True}, **body}
        return create(**body)

    return ask


HELLO = [{"role": "user", "content": QUESTION}]

CHAT = Api(
    name="chat",
    path="/v1/chat/completions",
    action="inference.chat",
    maker=openai.OpenAI,
    async_maker=openai.AsyncOpenAI,
    body=lambda n: {"model": "fake-chat", "messages": HELLO, "max_tokens": n},
    create=lambda client: _with_usage(client.chat.completions.create),
    whole=_chat_whole,
    streamed=_chat_streamed,
    errors=openai,
    ended=("length", "stop"),
)
COMPLETIONS = Api(
    name="completions",
    path="/v1/completions",
    action="inference.completion",
    maker=openai.OpenAI,
    async_maker=openai.AsyncOpenAI,
    body=lambda n: {"model": "fake-chat", "prompt": QUESTION, "max_tokens": n},
    create=lambda client: _with_usage(client.completions.create),
    whole=_completion_whole,
    streamed=_completion_streamed,
    errors=openai,
    ended=("length", "stop"),
)
RESPONSES = Api(
    name="responses",
    path="/v1/responses",
    action="inference.response",
    maker=openai.OpenAI,
    async_maker=openai.AsyncOpenAI,
    body=lambda n: {"model": "fake-chat", "input": QUESTION, "max_output_tokens": n},
    create=lambda client: client.responses.create,
    whole=_response_whole,
    streamed=_response_streamed,
    errors=openai,
    ended=("incomplete", "completed"),
)
MESSAGES = Api(
    name="messages",
    path="/v1/messages",
    action="inference.message",
    maker=anthropic.Anthropic,
    async_maker=anthropic.AsyncAnthropic,
    body=lambda n: {"model": "fake-chat", "messages": HELLO, "max_tokens": n},
    create=lambda client: client.messages.create,
    whole=_message_whole,
    streamed=_message_streamed,
    errors=anthropic,
    ended=("max_tokens", "end_turn"),
)

APIS = {api.name: api for api in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)}
NEW = {name: api for name, api in APIS.items() if name != "chat"}
