"""What counts leaves what is counted as it was: the guard stays, a fault is still answered."""

import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse
from starlette.applications import Starlette
from starlette.routing import Route

from inference.gateway.app import Straight
from inference.gateway.endpoint import Endpoint
from inference.gateway.metrics import GatewayMetrics
from portal.core.tenancy.guard import UnscopedAccess
from portal.site.metrics import MetricsMiddleware
from tenants.models import Membership


def test_count_a_threads_first_request_keeps_the_guard_of_its_connection(database: None) -> None:
    faults: list[type[BaseException]] = []

    def view(request: HttpRequest) -> HttpResponse:
        # The connection is made, and guarded, under way.
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return HttpResponse()

    def serve() -> None:
        request = HttpRequest()
        request.resolver_match = None
        MetricsMiddleware(view)(request)
        try:
            Membership.objects.count()
        except UnscopedAccess as fault:
            faults.append(type(fault))
        assert len(connection.execute_wrappers) == 1
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(30)
    assert faults == [UnscopedAccess]


def test_count_a_view_that_raises_leaves_no_timer_behind(database: None) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        raise RuntimeError("a fault of ours")

    before = list(connection.execute_wrappers)
    with pytest.raises(RuntimeError):
        MetricsMiddleware(view)(HttpRequest())
    assert connection.execute_wrappers == before


class Faulty(Endpoint):
    method = None
    action = "inference.faulty"

    async def serve(self, *args: Any) -> None:
        raise RuntimeError("a fault of ours")


async def test_fault_of_an_endpoint_is_answered_and_counted_as_one() -> None:
    metrics = GatewayMetrics()
    gateway: Any = SimpleNamespace(metrics=metrics, proxies=())
    app = Straight(Starlette(), [Route("/v1/faulty", Faulty(gateway), methods=None)])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://portal") as client:
        response = await client.get("/v1/faulty")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "server_error")
    assert metrics.requests == {("inference.faulty", 500): 1}
    assert metrics.errors == {"server_error": 1}
