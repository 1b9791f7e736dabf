"""The load generator, against a server that answers as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.lib.load import Plan, Result, Run, percentile

WHOLE = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"completion_tokens":16}}'
STREAM = (
    b'data: {"choices":[{"delta":{"content":""}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"b"}}]}\n\n',
    b"data: [DONE]\n\n",
)


def whole(status: str = "200 OK", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(WHOLE)}\r\n{extra}\r\n"
    return head.encode() + WHOLE


def streamed() -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in STREAM)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@asynccontextmanager
async def server(answer: bytes, *, closes: bool = False) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                json.loads(await reader.readexactly(length))
                writer.write(answer)
                await writer.drain()
                if closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def load(port: int, **plan: float) -> Result:
    each = int(plan.get("each", 5))
    made = Plan("127.0.0.1", port, "/v1/chat/completions", ("k",), "{}", connections=3, each=each)
    async with asyncio.timeout(20):
        return await Run(made).measure()


async def test_measure_whole_answers_counts_each_request_once() -> None:
    async with server(whole()) as port:
        result = await load(port)

    assert (result.requests, result.errors, result.tokens) == (15, 0, 15 * 16)
    assert 0 < result.p50_ms <= result.p99_ms


async def test_measure_streams_counts_text_and_times_the_first() -> None:
    async with server(streamed()) as port:
        result = await load(port)

    assert (result.requests, result.tokens) == (15, 30)
    assert 0 < result.ttft_p50_ms <= result.p50_ms


async def test_measure_refusals_counts_errors_and_keeps_one() -> None:
    async with server(whole("429 Too Many Requests")) as port:
        result = await load(port)

    assert (result.requests, result.errors) == (0, 15)
    assert result.error.startswith("429: ")


async def test_measure_connections_that_close_goes_on_with_new_ones() -> None:
    async with server(whole(extra="Connection: close\r\n"), closes=True) as port:
        result = await load(port)

    assert (result.requests, result.errors) == (15, 0)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
     ([float(n) for n in range(1, 101)], 0.99, 99.0)],
)  # fmt: skip
def test_percentile_of_values_is_the_smallest_that_covers_the_share(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected
