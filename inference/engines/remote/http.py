"""One server over HTTP: the client, and server-sent events."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from inference.engines.remote.faults import UpstreamFault, failed, of_status
from inference.engines.remote.metrics import Load, read_load
from inference.engines.remote.options import RemoteOptions, server_key

_MOST_EVENT_BYTES = 1 << 20
_MOST_ERROR_BYTES = 64 << 10
_MOST_METRICS_BYTES = 4 << 20
_MOST_ANSWER_BYTES = 128 << 20


def verification(options: RemoteOptions) -> ssl.SSLContext | bool:
    """How a server's certificate is checked."""
    if options.url.startswith("http:"):
        return False
    if not options.ca_file:
        return True
    return ssl.create_default_context(cafile=options.ca_file)


class Server:
    """A serving engine's HTTP interface; used on one event loop.

    Args:
        key: sent as a bearer token; empty sends none.
    """

    def __init__(self, options: RemoteOptions, *, key: str | None = None) -> None:
        self._options = options
        self._base = options.url.rstrip("/")
        self._metrics = options.metrics_url or f"{self._base}/metrics"
        key = server_key(options.key_name) if key is None else key
        limit = options.concurrency + 4  # health, metrics and aborts never wait for streams
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(None, connect=options.connect_seconds),
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
            verify=verification(options),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """The data of the server-sent events that answer a POST. Leaving it closes the stream.

        Raises:
            UpstreamFault: no connection, an error status, a cut or malformed stream.
        """
        async with self._answered(path, body, "text/event-stream") as response:
            yield _data(response.aiter_raw())

    async def ask(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The body of the answer to a POST, in one piece.

        Raises:
            UpstreamFault: no connection, an error status, a cut answer, or one too long.
        """
        content = bytearray()
        async with self._answered(path, body, "application/json") as response:
            async for part in response.aiter_raw():
                content += part
                if len(content) > _MOST_ANSWER_BYTES:
                    raise failed("The serving engine's answer is too long.")
        return bytes(content)

    @asynccontextmanager
    async def _answered(
        self, path: str, body: Mapping[str, Any], accept: str
    ) -> AsyncIterator[httpx.Response]:
        headers = {"accept": accept, "accept-encoding": "identity"}
        try:
            async with self._client.stream(
                "POST", self._base + path, json=body, headers=headers
            ) as response:
                if response.status_code != 200:
                    raise await _fault(response)
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise failed("The serving engine can't be reached.", away=True) from None
        except httpx.HTTPError:
            raise failed("The connection to the serving engine was lost.") from None

    async def get(self, path: str) -> httpx.Response | None:
        """The answer to a short GET, or None if there is none in time."""
        return await self._get(self._base + path)

    async def post(self, path: str, body: Mapping[str, Any]) -> None:
        """A short POST of which nothing depends."""
        try:
            await self._client.post(
                self._base + path, json=body, timeout=self._options.connect_seconds
            )
        except httpx.HTTPError:
            return

    async def load(self) -> Load | None:
        """The server's own figures, or None where it tells none."""
        response = await self._get(self._metrics)
        if response is None or response.status_code != 200:
            return None
        if len(response.content) > _MOST_METRICS_BYTES:
            return None
        try:
            return read_load(response.text)
        except ValueError:
            return None

    async def _get(self, url: str) -> httpx.Response | None:
        try:
            return await self._client.get(url, timeout=self._options.connect_seconds)
        except httpx.HTTPError:
            return None


async def _fault(response: httpx.Response) -> UpstreamFault:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > _MOST_ERROR_BYTES:
            break
    retry_after = response.headers.get("retry-after", "")
    return of_status(response.status_code, bytes(body), retry_after=retry_after)


async def _data(raw: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The data of each event; the lines of one are joined (HTML standard, 9.2.6)."""
    buffer = bytearray()
    lines: list[str] = []
    async for part in raw:
        buffer += part
        *whole, rest = buffer.split(b"\n")
        buffer = bytearray(rest)
        if len(buffer) > _MOST_EVENT_BYTES:
            raise failed("The serving engine's stream is malformed.")
        for line in (line.removesuffix(b"\r") for line in whole):
            if line.startswith(b"data:"):
                lines.append(line[5:].removeprefix(b" ").decode("utf-8", "replace"))
            elif not line and lines:
                yield "\n".join(lines)
                lines.clear()
    if lines:
        yield "\n".join(lines)
