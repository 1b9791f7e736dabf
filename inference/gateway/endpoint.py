"""What the data plane's endpoints share: one method, one audit action, refusals in shape."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import psycopg
import structlog

from inference.gateway.admission import Admitted, Allowed, Call, Refused, Verdict
from inference.gateway.answers import respond, respond_error
from inference.gateway.calls import Origin, Part, Pending
from inference.gateway.core import Gateway
from inference.gateway.keys import KeyFacts
from inference.gateway.requests import Arrival, Receive, Scope, Send, arrival, refused
from inference.gateway.sending import Sending
from inference.gateway.wire import errors
from inference.gateway.wire.headers import HeaderPairs
from inference.gateway.wire.style import OPENAI, Style
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)


class Endpoint:
    """An ASGI endpoint of one method; whatever is refused is recorded and answered in shape."""

    method: str | None
    action: str
    style: Style = OPENAI

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        sending = send if isinstance(send, Sending) else Sending(send)
        try:
            await self._answer(scope, receive, sending)
        except Exception:
            # Whoever called us answers with 500.
            sending.status = sending.status or 500
            self._gateway.metrics.failed(errors.server_error().error_code)
            raise
        finally:
            self._gateway.metrics.answered(self.action, sending, began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            unavailable = errors.unavailable()
            self._gateway.metrics.failed(unavailable.error_code)
            await respond_error(send, self.style, arrived.origin, unavailable)

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
        self._gateway.metrics.failed(verdict.error.error_code)
        await respond_error(send, self.style, arrived.origin, verdict.error, headers)

    async def _admit(self, pending: Pending, send: Send) -> Verdict | None:
        """The verdict, or None once a refusal has been answered."""
        verdict = await self._gateway.desk.submit(pending)
        if isinstance(verdict, Refused):
            self._gateway.metrics.failed(verdict.error.error_code)
            limits = self.style.limits(verdict.requests, verdict.tokens)
            await respond_error(send, self.style, pending.origin, verdict.error, limits)
            return None
        if isinstance(verdict, Admitted) and isinstance(send, Sending):
            chosen = pending.served_by(verdict).generation
            assert chosen is not None, "only generations are admitted"
            send.model = chosen.served.model_name
        return verdict


class ByMethod(Endpoint):
    """One path whose methods are endpoints of their own."""

    method = None

    def __init__(self, gateway: Gateway, *endpoints: type[Endpoint]) -> None:
        super().__init__(gateway)
        self.action = endpoints[0].action
        self._by_method = {str(e.method): e(gateway) for e in endpoints}

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        endpoint = self._by_method.get(scope["method"])
        if endpoint is not None:
            await endpoint.serve(scope, arrived, receive, send)
            return
        error = errors.method_not_allowed(scope["method"], self._by_method)
        allow = ", ".join(self._by_method).encode()
        await self._refuse(arrived, send, error, [(b"allow", allow)])


Answer = Callable[[Send, Origin], Awaitable[None]]


class Done(msgspec.Struct, frozen=True):
    """A call that did what it was asked for: how it is answered, and what the trail says."""

    answer: Answer
    detail: dict[str, Any] | None = None


class Recorded(Endpoint):
    """An endpoint that does its work between two entries in the trail: asked for, and ended.

    The key is proved before anything is read of the body, and again at the end.
    """

    async def act(self, key: KeyFacts, scope: Scope, arrived: Arrival, receive: Receive) -> Done:
        """Does the work for the key's tenant.

        Raises:
            PortalError: what the caller is refused with.
        """
        raise NotImplementedError

    async def serve(self, scope: Scope, arrived: Arrival, receive: Receive, send: Send) -> None:
        verdict = await self._admit(self._pending(arrived, Part.BEGINNING), send)
        if not isinstance(verdict, Allowed):
            return
        try:
            done = await self.act(verdict.key, scope, arrived, receive)
        except PortalError as error:
            await self._refuse(arrived, send, error)
            return
        except ConnectionResetError:
            await self._gateway.desk.submit(refused(self.action, arrived, errors.caller_gone()))
            raise
        if await self._admit(self._pending(arrived, Part.END, done.detail), send) is not None:
            await done.answer(send, arrived.origin)

    def _pending(
        self, arrived: Arrival, part: Part, detail: dict[str, Any] | None = None
    ) -> Pending:
        call = Call(arrived.credential)
        return Pending(
            self.action, arrived.origin, call, arrived.arrived_at, part=part, detail=detail
        )


def answer_json(body: bytes) -> Answer:
    """An answer of one piece of JSON."""

    async def answer(send: Send, origin: Origin) -> None:
        await respond(send, OPENAI, origin, 200, body)

    return answer
