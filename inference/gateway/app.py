"""The data plane: ``/v1`` as an ASGI application.

Thin by design: a request is parsed, handed to the admission desk, waited for and written out.
What is decided is decided in ``admission``; what is true is in PostgreSQL.
"""

from collections.abc import Awaitable, Callable, Sequence

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from inference.gateway.admission import Admitted, Call
from inference.gateway.answers import Reply, respond
from inference.gateway.batches import batch_routes
from inference.gateway.calls import (
    CHAT,
    COMPLETION,
    COUNT_TOKENS,
    EMBEDDING,
    LIST_MODELS,
    MESSAGE,
    RERANK,
    RESPONSE,
    UNKNOWN_ROUTE,
    Pending,
)
from inference.gateway.catalogue import Named, Routed, model_info
from inference.gateway.choices import answer_choices
from inference.gateway.core import Gateway
from inference.gateway.endpoint import Endpoint
from inference.gateway.files import file_routes
from inference.gateway.keys import KeyFacts
from inference.gateway.requests import (
    Arrival,
    Receive,
    Scope,
    Send,
    pending_count,
    pending_generation,
)
from inference.gateway.routing import Choice, reach
from inference.gateway.sending import Sending
from inference.gateway.stream import answer_stream
from inference.gateway.waiting import Waiter, watch
from inference.gateway.whole import answer_whole
from inference.gateway.wire import errors, message_models, response
from inference.gateway.wire.chat import ChatDialect
from inference.gateway.wire.common import Dialect, ParsedRequest
from inference.gateway.wire.completions import CompletionsDialect
from inference.gateway.wire.embeddings import EmbeddingsDialect
from inference.gateway.wire.message_style import ANTHROPIC
from inference.gateway.wire.messages import MessagesDialect, parse_count
from inference.gateway.wire.rerank import RerankDialect
from inference.gateway.wire.response import ModelInfo
from inference.gateway.wire.responses import ResponsesDialect
from inference.gateway.wire.style import OPENAI
from portal.core.ids import uuid7

log = structlog.get_logger(__name__)


class _Generation(Endpoint):
    """An endpoint that generates, in one dialect or another."""

    method = "POST"
    dialect: Dialect

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self.style = self.dialect.style

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        pending, request = await pending_generation(
            self.action,
            arrived,
            receive,
            gateway.catalogue,
            self.dialect,
            max_body_bytes=gateway.max_body_bytes,
            queue_seconds=gateway.queue_seconds,
        )
        verdict = await self._admit(pending, send)
        if not isinstance(verdict, Admitted):
            return
        assert request is not None, "what is admitted was parsed"
        pending = pending.served_by(verdict)
        wordless = request.inputs is not None
        waiter = gateway.room.enter(verdict.job_id, stream=request.stream, wordless=wordless)
        watching = watch(receive, waiter)
        answer = _answer_of(request)
        try:
            ended = await answer(waiter, Reply(send, verdict, pending, request, self.dialect))
        except BaseException:
            gateway.canceller.cancel(verdict.job_id)
            raise
        finally:
            watching.cancel()
            gateway.room.leave(waiter)
        if not ended:
            gateway.canceller.cancel(verdict.job_id)


def _answer_of(request: ParsedRequest) -> Callable[[Waiter, Reply], Awaitable[bool]]:
    if not request.stream:
        return answer_whole
    return answer_choices if request.detailed else answer_stream


class ChatCompletions(_Generation):
    action = CHAT
    dialect = ChatDialect()


class Completions(_Generation):
    action = COMPLETION
    dialect = CompletionsDialect()


class Responses(_Generation):
    action = RESPONSE
    dialect = ResponsesDialect()


class Messages(_Generation):
    action = MESSAGE
    dialect = MessagesDialect()


class Embeddings(_Generation):
    action = EMBEDDING
    dialect = EmbeddingsDialect()


class Rerank(_Generation):
    action = RERANK
    dialect = RerankDialect()


class CountTokens(Endpoint):
    """How many tokens a message's prompt has: asked with a key, charged to nobody."""

    method = "POST"
    action = COUNT_TOKENS
    style = ANTHROPIC

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        pending, tokens = await pending_count(
            self.action,
            arrived,
            receive,
            gateway.catalogue,
            parse_count,
            max_body_bytes=gateway.max_body_bytes,
        )
        if await self._admit(pending, send) is not None:
            body = b'{"input_tokens":%d}' % tokens
            await respond(send, self.style, arrived.origin, 200, body)


class ListModels(Endpoint):
    method = "GET"
    action = LIST_MODELS

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        names = await self._gateway.catalogue.names()
        name = scope["path_params"].get("model")
        found = None if name is None else names.get(name)
        unknown = errors.model_not_found(name) if name is not None and found is None else None
        call = Call(arrived.credential, refusal=unknown, model_name=name)
        if isinstance(found, Routed):
            call = Call(arrived.credential, choice=Choice(found.meaning, 0.0, {}))
        pending = Pending(self.action, arrived.origin, call, arrived.arrived_at)
        verdict = await self._admit(pending, send)
        if verdict is None:
            return
        if found is not None:
            body = self._one(model_info(name, found))
            await respond(send, self.style, arrived.origin, 200, body)
            return
        key = verdict.key
        assert key is not None, "who is let in has a key"
        models = [model_info(n, named) for n, named in names.items() if _may_use(key, named)]
        await respond(send, self.style, arrived.origin, 200, self._all(models))

    def _one(self, model: ModelInfo) -> bytes:
        return response.model_object(model)

    def _all(self, models: Sequence[ModelInfo]) -> bytes:
        return response.models_list(models)


def _may_use(key: KeyFacts, named: Named) -> bool:
    """Whether the key may call something by a name."""
    allowed = key.allowed_models
    if isinstance(named, Routed):
        return bool(reach(named.meaning, key.tenant_id, allowed))
    return allowed is None or named.model_name in allowed


class AnthropicModels(ListModels):
    """The same, as Anthropic's clients read it."""

    style = ANTHROPIC

    def _one(self, model: ModelInfo) -> bytes:
        return message_models.model_object(model)

    def _all(self, models: Sequence[ModelInfo]) -> bytes:
        return message_models.models_page(models)


class Models:
    """Both APIs list the models at one path; Anthropic's clients always say their version."""

    def __init__(self, gateway: Gateway) -> None:
        self._openai = ListModels(gateway)
        self._anthropic = AnthropicModels(gateway)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        versioned = any(name == b"anthropic-version" for name, _ in scope["headers"])
        await (self._anthropic if versioned else self._openai)(scope, receive, send)


class UnknownRoute(Endpoint):
    """Everything else under ``/v1``: recorded, and refused in the API's own shape."""

    method = None
    action = UNKNOWN_ROUTE

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        await self._refuse(arrived, send, errors.unknown_url(scope["method"], scope["path"]))


class UnknownMessages(UnknownRoute):
    """The same below Anthropic's path, such as its batches."""

    style = ANTHROPIC


def routes(gateway: Gateway) -> list[Route]:
    """The data plane's routes."""
    return [
        Route("/v1/chat/completions", ChatCompletions(gateway), methods=None),
        Route("/v1/completions", Completions(gateway), methods=None),
        Route("/v1/responses", Responses(gateway), methods=None),
        Route("/v1/embeddings", Embeddings(gateway), methods=None),
        Route("/v1/rerank", Rerank(gateway), methods=None),
        Route("/v1/messages", Messages(gateway), methods=None),
        Route("/v1/messages/count_tokens", CountTokens(gateway), methods=None),
        Route("/v1/messages/{path:path}", UnknownMessages(gateway), methods=None),
        Route("/v1/models", Models(gateway), methods=None),
        Route("/v1/models/{model}", Models(gateway), methods=None),
        *file_routes(gateway),
        *batch_routes(gateway),
        Route("/v1", UnknownRoute(gateway), methods=None),
        Route("/v1/{path:path}", UnknownRoute(gateway), methods=None),
    ]


async def server_fault(request: Request, fault: Exception) -> Response:
    """The answer to a request that met a fault of ours; Starlette raises it again for the log."""
    request_id = f"req-{uuid7().hex}"
    log.error("request.failed", request_id=request_id, error=repr(fault))
    style = ANTHROPIC if request.url.path.startswith("/v1/messages") else OPENAI
    body = style.error_body(errors.server_error(), request_id)
    answer = Response(body, 500, {"x-request-id": request_id}, media_type="application/json")
    answer.raw_headers += style.head(request_id)
    return answer


class Straight:
    """Hands the busiest routes to their endpoints; the application's router gets the rest.

    Routing and the framework's error handling cost more than parsing the request, so the exact
    paths of the data plane go round them; a fault of ours is answered as there.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[Route]) -> None:
        self._app = app
        self._endpoints = {r.path: r.app for r in routes if "{" not in r.path}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        sending = Sending(send)
        scope["path_params"] = {}
        try:
            await endpoint(scope, receive, sending)
        except Exception as fault:
            if not sending.head_at:
                answer = await server_fault(Request(scope), fault)
                await answer(scope, receive, send)
            raise
