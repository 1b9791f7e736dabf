"""Carries the calls of ``app_calls`` with the key of one app: at once, or on an event loop."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import httpx
import msgspec

from knowledge.dify import errors
from knowledge.dify.answers import (
    MOST_ANSWER_BYTES,
    Answer,
    check_head,
    refusal,
    unanswered,
)
from knowledge.dify.app_calls import Call
from knowledge.dify.app_shapes import AppEvent
from knowledge.dify.channel import (
    CALL_SECONDS,
    CONNECT_SECONDS,
    HEADERS,
    Channel,
    dify_targets,
    dify_tls,
)
from portal.core.outgoing import AsyncPinnedTransport

T = TypeVar("T")

SILENCE_SECONDS: Final = 60.0
"""Dify sends a ping every ten seconds while an answer is on its way."""
_MOST_EVENT_BYTES: Final = 4 * 1024 * 1024
_STREAM: Final = "text/event-stream"


class AppApi:
    """The calls of one app, one after the other; not shared among threads."""

    def __init__(self, channel: Channel, key: str) -> None:
        self._channel = channel
        self._headers = _bearer(key)

    def do(self, call: Call[T]) -> T:
        """Carries a call.

        Raises:
            DifyFault: of the kind that says why it failed.
        """
        answer = self._channel.call(
            call.method,
            f"/v1{call.path}",
            headers=self._headers,
            params=call.params,
            json=call.json,
        )
        return _read(answer, call.shape)


class AsyncChannel:
    """Connections to one Dify on an event loop, shared by all that ask there; close it.

    Args:
        base_url: as in ``Endpoint``.
        transport: by default one that calls what this installation's operator allows.
    """

    def __init__(self, base_url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._base = base_url.rstrip("/")
        self._client = httpx.AsyncClient(
            transport=transport or AsyncPinnedTransport(dify_targets(), dify_tls()),
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
            follow_redirects=False,
            headers=HEADERS,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def answer(
        self, call: Call[Any], headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        """The answer's head, its body to come; leaving it closes the connection.

        Raises:
            DifyFault: the call was refused or got no answer, now or while its body is read.
        """
        request = self._client.build_request(
            call.method,
            f"{self._base}/v1{call.path}",
            params=call.params,
            json=call.json,
            headers=dict(headers),
        )
        try:
            response = await self._client.send(request, stream=True)
            try:
                if not check_head(response):
                    raise refusal(response, await _bounded(response))
                yield response
            finally:
                await response.aclose()
        except httpx.HTTPError as fault:
            raise unanswered(fault) from None


class AsyncAppApi:
    """The calls of one app on an event loop; any number at once."""

    def __init__(self, channel: AsyncChannel, key: str) -> None:
        self._channel = channel
        self._headers = _bearer(key)

    async def do(self, call: Call[T], *, seconds: float = CALL_SECONDS) -> T:
        """Carries a call.

        Args:
            seconds: how long it may take in all.

        Raises:
            DifyFault: of the kind that says why it failed.
        """
        try:
            async with (
                asyncio.timeout(seconds),
                self._channel.answer(call, self._headers) as response,
            ):
                answer = Answer(response.status_code, await _bounded(response))
        except TimeoutError:
            raise errors.TimedOut from None
        return _read(answer, call.shape)

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[AsyncIterator[AppEvent]]:
        """The events that answer a question; leaving it early closes the stream.

        Dify goes on generating for a caller that has left: stop the task.

        Raises:
            DifyFault: the question is refused, or, while it is read, the stream breaks off.
        """
        async with self._channel.answer(call.streamed(), self._headers) as response:
            if not response.headers.get("content-type", "").startswith(_STREAM):
                raise errors.UnexpectedAnswer(remote_status=response.status_code)
            yield _events(response.aiter_raw())


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _read(answer: Answer, shape: type[T]) -> T:
    return answer.read(shape) if answer.body else msgspec.convert(None, shape)


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MOST_ANSWER_BYTES:
            raise errors.TooLarge(remote_status=response.status_code)
    return bytes(body)


_EVENT: Final = msgspec.json.Decoder(AppEvent)


async def _events(raw: AsyncIterator[bytes]) -> AsyncIterator[AppEvent]:
    """Each event; Dify writes an event's data in one line, and pings without data."""
    buffer = bytearray()
    async for chunk in raw:
        buffer += chunk
        *lines, rest = buffer.split(b"\n")
        buffer = bytearray(rest)
        if len(buffer) > _MOST_EVENT_BYTES:
            raise errors.TooLarge
        for line in lines:
            if line.startswith(b"data:"):
                yield _event(bytes(line[5:]))


def _event(data: bytes) -> AppEvent:
    try:
        return _EVENT.decode(data)
    except msgspec.DecodeError:
        raise errors.UnexpectedAnswer from None
