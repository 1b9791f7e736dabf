"""Asks a serving engine that you run, through the adapter ``openai_http`` and beside it.

It builds and starts nothing: name the server with ``--url`` and the artefact of its model with
``--artefact`` (``import_tokenizer``, or an imported GGUF). First the promises are checked on it:
events sum to the usage, a stop string ends, a cancellation ends at once. Then the same answers are
read by the adapter and by a bare HTTP client that looks at no byte, in turns; printed is tokens a
second, and the adapter's share of the bare client's.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

if __package__ in (None, ""):
    # In the place of this file's own folder, where it would hide Python's own module of its name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import httpx

from inference.engines.base import Done, Event, Failed, GenerationRequest, Message, Sampling, Token
from inference.engines.openai_http import OpenAIEngine
from inference.engines.openai_wire import body_of
from inference.prompts import PromptEncoder

_QUESTION: Final = (Message("user", "Tell me a long story about a house at the sea."),)


class _Sink:
    """Counts the tokens of each request, and waits for ends."""

    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}
        self.ends: dict[str, Done | Failed] = {}
        self.changed = threading.Condition()

    def __call__(self, events: Sequence[Event]) -> None:
        with self.changed:
            for event in events:
                if isinstance(event, Token):
                    self.tokens[event.request_id] = (
                        self.tokens.get(event.request_id, 0) + event.tokens
                    )
                else:
                    self.ends[event.request_id] = event
            self.changed.notify_all()

    def end(self, request_id: str) -> Done:
        with self.changed:
            self.changed.wait_for(lambda: request_id in self.ends)
        found = self.ends[request_id]
        if isinstance(found, Failed):
            raise SystemExit(f"{request_id} failed: {found.code}: {found.message}")
        return found


class _Bench:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.ids = PromptEncoder.load(arguments.artefact).encode(_QUESTION)
        self.sink = _Sink()
        options = {
            "url": arguments.url,
            "family": arguments.family,
            "concurrency": max(arguments.concurrency),
        }
        options |= {"model": arguments.model} if arguments.model else {}
        options |= {"api": arguments.api} if arguments.api else {}
        self.engine = OpenAIEngine(
            artefact_dir=arguments.artefact,
            context_length=arguments.context,
            options=options,
            emit=self.sink,
        )
        self.engine.load()
        self.runs = 0

    def request(self, name: str, **sampling: Any) -> GenerationRequest:
        sampling = {"max_tokens": self.arguments.tokens, "temperature": 0.0} | sampling
        return GenerationRequest(name, self.ids, _QUESTION, Sampling(**sampling))

    def check(self) -> dict[str, Any]:
        """The promises, on this server."""
        self.engine.submit(self.request("whole"))
        done = self.sink.end("whole")
        assert done.completion_tokens == self.sink.tokens["whole"] > 0, done
        self.engine.submit(self.request("stop", stop=("e",)))
        stopped = self.sink.end("stop")
        assert stopped.completion_tokens <= done.completion_tokens, stopped
        self.engine.submit(self.request("cancel", max_tokens=self.arguments.tokens * 4))
        with self.sink.changed:
            self.sink.changed.wait_for(lambda: "cancel" in self.sink.tokens)
        asked = time.monotonic()
        self.engine.cancel("cancel")
        cancelled = self.sink.end("cancel")
        return {
            "completion_tokens": done.completion_tokens,
            "reason": done.reason,
            "cancelled": cancelled.reason == "cancelled",
            "cancel_ms": round((time.monotonic() - asked) * 1000, 1),
        }

    def through_the_adapter(self, count: int) -> float:
        """Tokens a second of so many answers at once."""
        self.runs += 1
        names = [f"{self.runs}-{n}" for n in range(count)]
        started = time.monotonic()
        for name in names:
            self.engine.submit(self.request(name))
        tokens = sum(self.sink.end(name).completion_tokens for name in names)
        return tokens / (time.monotonic() - started)

    def bare(self, count: int) -> float:
        """The same by a client that reads and throws away; tokens as the adapter counts them."""
        api = self.arguments.api or "completions"
        path = "/v1/chat/completions" if api == "chat" else "/v1/completions"
        body = body_of(
            self.request("bare"),
            family=self.arguments.family,
            chat=api == "chat",
            model=self.engine._model,
            share_cache=False,
        )

        async def read(client: httpx.AsyncClient) -> None:
            async with client.stream("POST", self.arguments.url + path, json=body) as response:
                async for _ in response.aiter_raw():
                    pass

        async def run() -> float:
            limits = httpx.Limits(max_connections=count)
            async with httpx.AsyncClient(timeout=None, limits=limits) as client:  # noqa: S113
                started = time.monotonic()
                await asyncio.gather(*(read(client) for _ in range(count)))
                return time.monotonic() - started

        return count * self.sink.tokens["whole"] / asyncio.run(run())


def main() -> None:
    arguments = _arguments()
    bench = _Bench(arguments)
    figures: dict[str, Any] = {"server": arguments.family, "promises": bench.check()}
    sys.stdout.write(f"{json.dumps(figures['promises'])}\n")
    sys.stdout.write("at once   adapter tok/s   bare tok/s   adapter of bare\n")
    for count in arguments.concurrency:
        turns = [
            (bench.through_the_adapter(count), bench.bare(count)) for _ in range(arguments.turns)
        ]
        adapter, bare = (max(column) for column in zip(*turns, strict=True))
        figures[f"c{count}"] = {"adapter": adapter, "bare": bare, "ratio": adapter / bare}
        sys.stdout.write(f"{count:7}   {adapter:13.1f}   {bare:10.1f}   {adapter / bare:15.2f}\n")
    bench.engine.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="the server, without /v1")
    parser.add_argument("--artefact", required=True, type=Path, help="its model's artefact folder")
    parser.add_argument("--family", default="openai")
    parser.add_argument("--model", default="")
    parser.add_argument("--api", default="", choices=["", "completions", "chat"])
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
