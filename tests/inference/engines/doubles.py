"""A server on loopback that answers as a test says, and misbehaves where told to."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn

MODELS = {"object": "list", "data": [{"id": "the-model", "object": "model"}]}


@dataclass
class Reply:
    """An answer of the server.

    Args:
        events: data of server-sent events, as JSON unless a text; bytes go out as they are.
        body: the whole body instead, as JSON unless a text.
        then: after the last event the stream ends, is cut, or hangs until the client goes.
    """

    events: Sequence[Any] = ()
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    then: str = "end"


@dataclass
class Asked:
    """A request that reached the server."""

    path: str
    body: Any
    headers: dict[str, str]


Plan = Callable[[Asked], Reply]


def encoded(event: Any) -> bytes:
    """A server-sent event."""
    if isinstance(event, bytes):
        return event
    data = event if isinstance(event, str) else json.dumps(event)
    return f"data: {data}\n\n".encode()


class Double:
    """Serves until it is closed; POSTs are answered by ``plan``, GETs by ``pages``."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pages: dict[str, Reply] = {
            "/health": Reply(),
            "/v2/health/ready": Reply(),
            "/v1/models": Reply(body=MODELS),
        }
        self.asked: list[Asked] = []
        self.gone = threading.Event()  # a client left a stream that hangs
        config = uvicorn.Config(
            self._app,
            host="127.0.0.1",
            port=0,
            log_level="critical",
            lifespan="off",
            interface="asgi3",
        )
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(30)

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def posts(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(30)

    def _run(self) -> None:
        async def serve() -> None:
            asyncio.get_running_loop().call_soon(self._tell_started)
            await self._server.serve()

        asyncio.run(serve())

    def _tell_started(self) -> None:
        if self._server.started:
            self._started.set()
        else:
            asyncio.get_running_loop().call_later(0.005, self._tell_started)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if scope["method"] == "GET":
            await self._answer(self.pages.get(path, Reply(status=404)), receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        asked = Asked(path, json.loads(body), headers)
        self.asked.append(asked)
        await self._answer(self.plan(asked), receive, send)

    async def _answer(self, reply: Reply, receive: Any, send: Any) -> None:
        whole = isinstance(reply.body, str | dict | list)
        kind = b"text/event-stream" if reply.events else b"application/json"
        headers = [(b"content-type", kind)]
        headers += [(k.encode(), v.encode()) for k, v in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for event in reply.events:
            await send({"type": "http.response.body", "body": encoded(event), "more_body": True})
        if reply.then == "cut":
            raise RuntimeError("the server dies here")
        if reply.then == "hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
            return
        text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        await send({"type": "http.response.body", "body": text.encode() if whole else b""})


def completion(text: str, *, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of ``/v1/completions``."""
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason, **more}]}


def delta(content: str | None = None, *, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of ``/v1/chat/completions``."""
    return {
        "choices": [{"index": 0, "delta": {"content": content, **more}, "finish_reason": reason}]
    }


def usage(prompt: int, completed: int) -> dict[str, Any]:
    """The last chunk, which has no choice."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completed}}


def words(count: int, *, prompt: int = 3) -> Reply:
    """A good answer of so many tokens, a word each, with its usage."""
    chunks: list[Any] = [completion(f"w{n} ") for n in range(count - 1)]
    chunks += [completion(f"w{count - 1} ", reason="length"), usage(prompt, count), "[DONE]"]
    return Reply(chunks)


def answer_of(asked: Asked) -> Reply:
    """A good answer of as many tokens as may be asked for."""
    return words(int(asked.body["max_tokens"]), prompt=len(asked.body.get("prompt", ())))
