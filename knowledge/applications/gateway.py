"""The app gateway: published apps as ASGI endpoints, streamed or answered in one piece.

It stands beside Django in the control plane's process, because a stream holds neither a thread nor
a transaction: the ORM is used on threads, for moments. What a middleware does there for every
call is done here too: the caller is found out, and the call and its outcome are recorded.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
import structlog
from django.db import Error as DatabaseFault
from starlette.routing import Route

from audit.models import Category, Outcome
from audit.services import Event, record
from inference.gateway.requests import (
    Arrival,
    Receive,
    Scope,
    Send,
    arrival,
    read_body,
)
from inference.gateway.wire import errors
from inference.gateway.wire.headers import HeaderPairs, parse_authorization, retry_headers
from inference.jobs.streams import Slots
from knowledge.applications.backends import AppCall, AppEvent, Delta, Ended, Sources, usage_json
from knowledge.applications.calling import Answered, Apps, Asked
from knowledge.models import AppMode
from portal.core.actors import ANONYMOUS, Context
from portal.core.env import env
from portal.core.errors import Invalid, PortalError, Unavailable
from portal.core.http import trusted_networks
from portal.core.problems import PROBLEM, problem_body
from portal.core.tenancy import bare_scope, tenant_scope
from tenants.errors import InvalidApiKey, NetworkNotAllowed
from tenants.identity.keys import authenticate_api_key

log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS: Final = 15.0
MOST_BODY_BYTES: Final = 1024 * 1024
MOST_ANSWERS: Final = 400
_DENIALS: Final = frozenset({401, 403, 404, 429})

Reply = AppCall | AppEvent
Counted = Callable[[str, int, float, float], None]
B = TypeVar("B")


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: str = ""
    inputs: dict[str, Any] = {}
    conversation_id: UUID | None = None
    user: str = ""
    version: int | None = None
    stream: bool = False


class _StopBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user: str = ""


class _Endpoint:
    """One POST below an app: identified, recorded, served, recorded.

    Args:
        counted: called with a view's name, status, seconds, and those of them in the database.
    """

    action: str
    view: str

    def __init__(self, apps: Apps, counted: Counted) -> None:
        self._apps = apps
        self._counted = counted
        self._proxies = tuple(trusted_networks(env().trusted_proxies))

    async def serve(
        self, context: Context, scope: Scope, arrived: Arrival, receive: Receive, send: Send
    ) -> int:
        """Answers, and gives the status.

        Raises:
            PortalError: as long as nothing has been sent.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        arrived = arrival(scope, self._proxies)
        context, refusal = await self._threads(partial(_identify, arrived))
        try:
            await self._record(context, scope, Outcome.REQUESTED)
        except DatabaseFault:
            log.exception("audit.refused_call")
            unrecorded = Unavailable("The audit trail does not answer, so nothing was done.")
            await _refuse(send, arrived, unrecorded)
            return
        reason = ""
        try:
            if refusal is None and scope["method"] != "POST":
                refusal = errors.method_not_allowed(scope["method"], ["POST"])
            if refusal is not None:
                raise refusal
            status = await self.serve(context, scope, arrived, receive, send)
        except ConnectionResetError:
            status, reason = 499, "caller_gone"
        except PortalError as fault:
            status, reason = fault.error_status, fault.error_code
            await _refuse(send, arrived, fault)
        took = time.monotonic() - began
        self._counted(self.view, status, took, 0.0)
        detail = {"status": status, "milliseconds": round(took * 1000)}
        try:
            await self._record(context, scope, _outcome(status), reason, detail)
        except DatabaseFault:
            # What was done is done; the recorded request without an outcome tells of it.
            log.exception("audit.missed_outcome")

    async def _record(
        self,
        context: Context,
        scope: Scope,
        outcome: Outcome,
        reason: str = "",
        more: dict[str, Any] | None = None,
    ) -> None:
        path = scope["path"].replace("\x00", "\\0")[:500]
        detail = {"method": scope["method"][:16], "path": path, **(more or {})}
        event = Event(Category.CALL, self.action, outcome, reason=reason, detail=detail)
        await self._threads(partial(_write, context, event))

    @property
    def _threads(self) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
        return self._apps.live.on_thread


class Answer(_Endpoint):
    """``/chat`` or ``/run``."""

    def __init__(self, apps: Apps, counted: Counted, mode: AppMode, slots: Slots) -> None:
        super().__init__(apps, counted)
        self.view = f"app-{mode.value}"
        self._mode = mode
        self._slots = slots
        self.action = f"POST /api/v1/apps/<app>/{mode.value}"

    async def serve(
        self, context: Context, scope: Scope, arrived: Arrival, receive: Receive, send: Send
    ) -> int:
        body = _decoded(await read_body(arrived, receive, MOST_BODY_BYTES), _Body)
        if self._mode == AppMode.RUN and (body.query or body.conversation_id):
            raise Invalid("A run has inputs alone: leave 'query' and 'conversation_id' out.")
        asked = Asked(
            scope["path_params"]["app"],
            self._mode,
            body.query,
            body.inputs,
            body.conversation_id,
            body.user,
            body.version,
            session=context.auth_method == "playground_key",
        )
        assert context.tenant_id is not None, "who is let in has a tenant"
        self._slots.take(context.tenant_id)
        try:
            async with aclosing(self._apps.answer(context, asked)) as events:
                steps = _while_there(events, receive)
                async with aclosing(steps):
                    respond = _stream if body.stream else _whole
                    return await respond(steps, arrived, send)
        finally:
            self._slots.give_back(context.tenant_id)


class Stop(_Endpoint):
    """``/messages/{id}/stop``: ends an answer that another call is being given."""

    action = "POST /api/v1/apps/<app>/messages/<message>/stop"
    view = "app-stop"

    async def serve(
        self, context: Context, scope: Scope, arrived: Arrival, receive: Receive, send: Send
    ) -> int:
        raw = await read_body(arrived, receive, MOST_BODY_BYTES)
        body = _decoded(raw, _StopBody) if raw.strip() else _StopBody()
        names = scope["path_params"]
        try:
            message_id = UUID(names["message"])
        except ValueError:
            raise Invalid("'message' is not an id.", param="message") from None
        await self._apps.stop(context, names["app"], message_id, body.user)
        await _respond(send, arrived, 202, {"stopped": True})
        return 202


def app_routes(apps: Apps, counted: Counted) -> list[Route]:
    """What is called with a key and waited for; everything else of apps is the management API's."""
    slots = Slots(most=MOST_ANSWERS, of_tenant=MOST_ANSWERS // 4)
    below = "/api/v1/apps/{app}"
    return [
        Route(f"{below}/chat", Answer(apps, counted, AppMode.CHAT, slots), methods=None),
        Route(f"{below}/run", Answer(apps, counted, AppMode.RUN, slots), methods=None),
        Route(f"{below}/messages/{{message}}/stop", Stop(apps, counted), methods=None),
    ]


# -- who calls ---------------------------------------------------------------------------------


def _identify(arrived: Arrival) -> tuple[Context, PortalError | None]:
    origin = arrived.origin
    base = Context(
        actor=ANONYMOUS,
        address=origin.address,
        request_id=origin.request_id,
        client_request_id=origin.client_request_id,
    )
    header = arrived.headers.get(b"authorization", b"").decode("latin-1")
    session = arrived.credential.session_key if arrived.credential is not None else None
    try:
        token = parse_authorization(header)
        if token is None:
            raise InvalidApiKey
        return authenticate_api_key(token, base=base, session_key=session), None
    except NetworkNotAllowed as fault:
        return fault.context, fault
    except PortalError as fault:
        return base, fault


def _write(context: Context, event: Event) -> None:
    scope = bare_scope if context.tenant_id is None else tenant_scope
    with scope(context):
        record(event)


def _outcome(status: int) -> Outcome:
    if status in _DENIALS:
        return Outcome.DENIED
    return Outcome.SUCCESS if status < 400 else Outcome.FAILURE


# -- what is sent and answered -----------------------------------------------------------------


def _decoded(raw: bytes, shape: type[B]) -> B:
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.MsgspecError, RecursionError) as fault:
        raise Invalid(f"The body is wrong: {fault}.", param="body") from None


async def _while_there(
    events: AsyncIterator[Reply], receive: Receive
) -> AsyncGenerator[Reply | None, None]:
    """The events, and None for each while without any; ends when the caller goes away.

    Raises:
        ConnectionResetError: the caller has gone.
    """
    gone = asyncio.create_task(_gone(receive))
    step: asyncio.Future[Reply] | None = None
    try:
        while True:
            step = step or asyncio.ensure_future(anext(events))
            waited: set[asyncio.Future[Any]] = {step, gone}
            await asyncio.wait(
                waited, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done():
                raise ConnectionResetError("the caller went away")
            if not step.done():
                yield None
                continue
            done, step = step, None
            try:
                yield done.result()
            except StopAsyncIteration:
                return
    finally:
        gone.cancel()
        if step is not None:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole(events: AsyncIterator[Reply | None], arrived: Arrival, send: Send) -> int:
    answered: Answered | None = None
    async for event in events:
        if isinstance(event, AppCall):
            answered = Answered(event)
        elif answered is not None and event is not None:
            answered.take(event)
    if answered is None or answered.ended is None:
        raise PortalError("The app gave no answer.", code="no_answer")
    await _respond(send, arrived, 200, _answer_json(answered))
    return 200


def _answer_json(answered: Answered) -> dict[str, Any]:
    call, ended = answered.call, answered.ended
    assert ended is not None
    found: dict[str, Any] = {
        **_started_json(call),
        "answer": answered.answer,
        **_sources_json(answered.sources or Sources(())),
        "finish_reason": ended.reason,
        "usage": usage_json(ended),
    }
    if call.spec.schema is not None:
        found["output"] = _output(answered.answer)
    if call.spec.disclaimer:
        found["disclaimer"] = call.spec.disclaimer
    return found


def _output(text: str) -> Any:
    """What a structured answer decodes to; None of one that was cut."""
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.MsgspecError:
        return None


def _started_json(call: AppCall) -> dict[str, Any]:
    return {
        "app": call.slug,
        "version": call.version,
        "conversation_id": call.conversation_id,
        "message_id": call.message_id,
    }


def _sources_json(found: Sources) -> dict[str, Any]:
    return {
        "sources": [msgspec.to_builtins(source) for source in found.sources],
        "left_out": found.left_out,
        "degraded": found.degraded,
    }


async def _stream(events: AsyncIterator[Reply | None], arrived: Arrival, send: Send) -> int:
    """Sends events as they come; the head leaves with the first, so a refusal stays a 4xx."""
    answered: Answered | None = None
    try:
        async for event in events:
            if isinstance(event, AppCall):
                answered = Answered(event)
                await _start(send, arrived, 200, b"text/event-stream; charset=utf-8", _UNBUFFERED)
                await _piece(send, _sse("started", _started_json(event)))
            elif answered is not None:
                if event is not None:
                    answered.take(event)
                await _piece(send, _event(event, answered))
    except PortalError as fault:
        if answered is None:
            raise
        request_id = arrived.origin.request_id
        await _piece(send, _sse("error", problem_body(fault, request_id)), more=False)
        return fault.error_status
    if answered is not None:
        await _piece(send, b"", more=False)
    return 200


def _event(event: Reply | None, answered: Answered) -> bytes:
    if event is None:
        return b": keep-alive\n\n"
    if isinstance(event, Delta):
        return _sse("delta", {"text": event.text})
    if isinstance(event, Sources):
        return _sse("sources", _sources_json(event))
    if isinstance(event, Ended):
        done: dict[str, Any] = {"finish_reason": event.reason}
        if answered.call.spec.schema is not None:
            done["output"] = _output(answered.answer)
        if answered.call.spec.disclaimer:
            done["disclaimer"] = answered.call.spec.disclaimer
        return _sse("usage", usage_json(event)) + _sse("done", done)
    return b""


_UNBUFFERED: Final[HeaderPairs] = [(b"x-accel-buffering", b"no")]


def _sse(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


async def _start(
    send: Send, arrived: Arrival, status: int, content_type: bytes, extra: HeaderPairs
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"x-request-id", arrived.origin.request_id.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _piece(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _respond(
    send: Send,
    arrived: Arrival,
    status: int,
    body: dict[str, Any],
    *,
    content_type: str = "application/json",
    extra: HeaderPairs | None = None,
) -> None:
    encoded = msgspec.json.encode(body)
    length = [(b"content-length", b"%d" % len(encoded))]
    await _start(send, arrived, status, content_type.encode(), [*length, *(extra or [])])
    await _piece(send, encoded, more=False)


async def _refuse(send: Send, arrived: Arrival, refusal: PortalError) -> None:
    extra = retry_headers(refusal)
    if refusal.error_status == 401:
        extra = [*extra, (b"www-authenticate", b'Bearer realm="freehold"')]
    if refusal.error_status == 405:
        extra = [*extra, (b"allow", b"POST")]
    body = problem_body(refusal, arrived.origin.request_id)
    await _respond(send, arrived, refusal.error_status, body, content_type=PROBLEM, extra=extra)
