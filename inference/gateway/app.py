"""The data plane: ``/v1`` as an ASGI application.

Thin by design: a request is parsed, handed to the admission desk, waited for and written out.
What is decided is decided in ``admission``; what is true is in PostgreSQL.
"""

from collections.abc import MutableMapping, Sequence
from typing import Any

import psycopg
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from inference.gateway.admission import Admitted, Call, KeyFacts, Refused, Verdict
from inference.gateway.answers import respond, respond_error
from inference.gateway.calls import CHAT, LIST_MODELS, UNKNOWN_ROUTE, Pending
from inference.gateway.catalogue import Named, Routed, model_info
from inference.gateway.core import Gateway
from inference.gateway.requests import (
    Arrival,
    Receive,
    Scope,
    Send,
    arrival,
    pending_chat,
    refused,
)
from inference.gateway.routing import Choice, reach
from inference.gateway.stream import answer_stream
from inference.gateway.waiting import watch
from inference.gateway.whole import answer_whole
from inference.gateway.wire import errors, response
from inference.gateway.wire.headers import HeaderPairs, rate_limit_headers
from portal.core.errors import PortalError
from portal.core.ids import uuid7

log = structlog.get_logger(__name__)


class _Endpoint:
    """An ASGI endpoint of one method; whatever is refused is recorded and answered in shape."""

    method: str | None
    action: str

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrived = arrival(scope, self._gateway.proxies)
        try:
            if self.method is not None and scope["method"] != self.method:
                error = errors.method_not_allowed(scope["method"], [self.method])
                await self._refuse(arrived, send, error, [(b"allow", self.method.encode())])
                return
            await self.serve(scope, arrived, receive, send)
        except ConnectionResetError:
            return
        except psycopg.Error as fault:
            log.error("gateway.database_failed", error=str(fault))
            await respond_error(send, arrived.origin, errors.unavailable())

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        raise NotImplementedError

    async def _refuse(
        self,
        arrived: Arrival,
        send: Send,
        error: PortalError,
        headers: HeaderPairs | None = None,
    ) -> None:
        verdict = await self._gateway.desk.submit(refused(self.action, arrived, error))
        assert isinstance(verdict, Refused)
        await respond_error(send, arrived.origin, verdict.error, headers)

    async def _admit(self, pending: Pending, send: Send) -> Verdict | None:
        """The verdict, or None once a refusal has been answered."""
        verdict = await self._gateway.desk.submit(pending)
        if isinstance(verdict, Refused):
            limits = rate_limit_headers(requests=verdict.requests, tokens=verdict.tokens)
            await respond_error(send, pending.origin, verdict.error, limits)
            return None
        return verdict


class ChatCompletions(_Endpoint):
    method = "POST"
    action = CHAT

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        pending, request = await pending_chat(
            self.action,
            arrived,
            receive,
            gateway.catalogue,
            max_body_bytes=gateway.max_body_bytes,
            queue_seconds=gateway.queue_seconds,
        )
        verdict = await self._admit(pending, send)
        if not isinstance(verdict, Admitted):
            return
        assert request is not None, "what is admitted was parsed"
        waiter = gateway.room.enter(verdict.job_id, stream=request.stream)
        watching = watch(receive, waiter)
        answer = answer_stream if request.stream else answer_whole
        try:
            ended = await answer(waiter, verdict, pending, request, send)
        except BaseException:
            gateway.canceller.cancel(verdict.job_id)
            raise
        finally:
            watching.cancel()
            gateway.room.leave(waiter)
        if not ended:
            gateway.canceller.cancel(verdict.job_id)


class ListModels(_Endpoint):
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
            info = model_info(name, found)
            await respond(send, arrived.origin, 200, response.model_object(info))
            return
        key = verdict.key
        assert key is not None, "who is let in has a key"
        models = [model_info(n, named) for n, named in names.items() if _may_use(key, named)]
        await respond(send, arrived.origin, 200, response.models_list(models))


def _may_use(key: KeyFacts, named: Named) -> bool:
    """Whether the key may call something by a name."""
    allowed = key.allowed_models
    if isinstance(named, Routed):
        return bool(reach(named.meaning, key.tenant_id, allowed))
    return allowed is None or named.model_name in allowed


class UnknownRoute(_Endpoint):
    """Everything else under ``/v1``: recorded, and refused in the API's own shape."""

    method = None
    action = UNKNOWN_ROUTE

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        await self._refuse(arrived, send, errors.unknown_url(scope["method"], scope["path"]))


def routes(gateway: Gateway) -> list[Route]:
    """The data plane's routes."""
    return [
        Route("/v1/chat/completions", ChatCompletions(gateway), methods=None),
        Route("/v1/models", ListModels(gateway), methods=None),
        Route("/v1/models/{model}", ListModels(gateway), methods=None),
        Route("/v1", UnknownRoute(gateway), methods=None),
        Route("/v1/{path:path}", UnknownRoute(gateway), methods=None),
    ]


async def server_fault(request: Request, fault: Exception) -> Response:
    """The answer to a request that met a fault of ours; Starlette raises it again for the log."""
    request_id = f"req-{uuid7().hex}"
    log.error("request.failed", request_id=request_id, error=repr(fault))
    body = errors.error_body(errors.server_error(), request_id)
    headers = {"x-request-id": request_id}
    return Response(body, 500, headers, media_type="application/json")


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
        started = False

        async def tell(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        scope["path_params"] = {}
        try:
            await endpoint(scope, receive, tell)
        except Exception as fault:
            if not started:
                answer = await server_fault(Request(scope), fault)
                await answer(scope, receive, send)
            raise
