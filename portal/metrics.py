"""``/metrics``: what this process has counted, and what it reads for those who watch.

Denied by default: it is for callers on this machine, and for those who bring ``METRICS_TOKEN``.
A scrape leaves no event in the audit trail, for it shows nobody's rows.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import psycopg
import structlog
from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from audit.metrics import read_trail
from inference.gateway.core import Gateway
from inference.gateway.link import Link
from inference.gateway.metrics import gateway_families
from inference.metrics import read_dispatch
from portal.celery import beat_intervals
from portal.core.env import Env
from portal.core.http import client_address
from portal.core.metrics import Families, counter, gauge
from portal.core.periodic import read_periodic
from portal.core.resp import FAULTS, RespLink
from portal.site.metrics import HTTP
from tenants.metrics import read_usage

log = structlog.get_logger(__name__)

_FRESH_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 3.0
_REFUSAL: Final = (
    "Metrics are read from this machine itself, or with the bearer token METRICS_TOKEN.\n"
)
# Whoever sends one of these speaks for somebody else.
_FORWARDING: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "via")


class _Source:
    """Figures that are read elsewhere: at most once a second, and waited for three at most."""

    def __init__(self, name: str, read: Callable[[], Awaitable[Families]]) -> None:
        self.name = name
        self.up = False
        self._read = read
        self._found: Families = []
        self._read_at = -_FRESH_SECONDS
        self._lock = asyncio.Lock()

    async def families(self) -> Families:
        """The figures; none where they could not be read."""
        async with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_SECONDS:
                self._found = await self._try()
                self._read_at = time.monotonic()
            return self._found

    async def _try(self) -> Families:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                found = await self._read()
        except (psycopg.Error, *FAULTS) as fault:
            log.warning("metrics.unread", source=self.name, error=str(fault))
            self.up = False
            return []
        self.up = True
        return found


@dataclass(frozen=True, slots=True)
class _Found:
    """What a scrape renders."""

    families: Families

    def collect(self) -> Families:
        return self.families


class Metrics:
    """The endpoint of one process.

    Args:
        gateway: the data plane's, if this process serves it.
        control: whether this process serves the control plane.
    """

    def __init__(self, env: Env, gateway: Gateway | None, *, control: bool) -> None:
        token = env.metrics_token
        self._token = token.get_secret_value().encode() if token is not None else None
        self._process = ProcessCollector(registry=None)
        self._gateway = gateway
        self._control = control
        self._refused = 0
        self._links: list[Link] = []
        self._broker = RespLink(env.redis_url.get_secret_value())
        self._sources: list[_Source] = []
        if gateway is not None:
            self._add_dispatch(env, gateway)
        if control:
            self._add_control(env)

    def _link(self, url: str, name: str) -> Link:
        # Of its own: a scrape holds up nothing that serves callers.
        link = Link(url, name)
        self._links.append(link)
        return link

    def _add_dispatch(self, env: Env, gateway: Gateway) -> None:
        link = self._link(env.database_url("gateway"), "metrics-dispatch")

        async def read(connection: psycopg.AsyncConnection[Any]) -> Families:
            return await read_dispatch(connection, gateway.backlogs.now())

        self._sources.append(_Source("dispatch", lambda: link.read(read)))

    def _add_control(self, env: Env) -> None:
        link = self._link(env.database_url("app"), "metrics-control")
        intervals = beat_intervals()

        async def read(connection: psycopg.AsyncConnection[Any]) -> Families:
            return [*await read_usage(connection), *await read_trail(connection)]

        self._sources += [
            _Source("rollups", lambda: link.read(read)),
            _Source("periodic", lambda: read_periodic(self._broker, intervals)),
        ]

    async def close(self) -> None:
        """Ends the connections."""
        for link in self._links:
            await link.close()
        self._broker.close()

    async def serve(self, request: Request) -> Response:
        """``GET /metrics``."""
        if not self._may(request):
            self._refused += 1
            return PlainTextResponse(_REFUSAL, 403)
        families = await self._families()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        headers = {"content-type": content_type, "cache-control": "no-store"}
        return Response(encode(_Found(families)), headers=headers)

    async def _families(self) -> Families:
        found: Families = list(self._process.collect())
        if self._gateway is not None:
            found += gateway_families(self._gateway)
        if self._control:
            found += HTTP.families()
        for source in self._sources:
            found += await source.families()
        found += [
            gauge(
                "freehold_metrics_source_up",
                "1 if the figures that are read elsewhere could be read, by which they are.",
                ("source",),
                [((source.name,), float(source.up)) for source in self._sources],
            ),
            counter(
                "freehold_metrics_refused",
                "Scrapes that were refused.",
                (),
                [((), self._refused)],
            ),
        ]
        return found

    def _may(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        if given:
            scheme, _, token = given.partition(" ")
            return (
                self._token is not None
                and scheme.lower() == "bearer"
                and hmac.compare_digest(token.strip().encode(), self._token)
            )
        return _is_local(request)


def _is_local(request: Request) -> bool:
    """Whether the call comes from this machine, and not through a proxy on it.

    Whatever a proxy says of its callers, trusted or not, they are from elsewhere.
    """
    peer = request.client.host if request.client is not None else None
    address = client_address(peer, None, ())
    if address is None or not ip_address(address).is_loopback:
        return False
    return not any(name in request.headers for name in _FORWARDING)


def metrics_routes(metrics: Metrics) -> list[Route]:
    """``/metrics``."""
    return [Route("/metrics", metrics.serve)]
