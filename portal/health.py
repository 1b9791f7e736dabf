"""Health: alive means this process answers; ready means a request would be served."""

import asyncio
from typing import Final

import psycopg
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connection
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from inference.backlog import WORKER_SECONDS
from inference.gateway.core import Gateway

_TIMEOUT_SECONDS: Final = 3

_WORKERS: Final = f"""
SELECT d.name, coalesce(bool_or(w.state = 'ready'), false), count(w.id),
       coalesce(string_agg(w.detail, '; ') FILTER (WHERE w.state = 'failed'), ''),
       coalesce(bool_or(w.state IN ('drained', 'unloaded')), false)
  FROM inference_deployment d
  LEFT JOIN inference_worker w ON w.deployment_id = d.id
       AND w.heartbeat_at > now() - interval '{WORKER_SECONDS} seconds'
 WHERE d.enabled GROUP BY d.name ORDER BY d.name
"""


def health_routes(gateway: Gateway | None) -> list[Route]:
    """``/health/live`` and ``/health/ready``; the latter names what is missing."""

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def ready(request: Request) -> JSONResponse:
        checks = await _checks(gateway)
        whole = all(value == "ok" for value in checks.values())
        body = {"status": "ready" if whole else "not ready", "checks": checks}
        return JSONResponse(body, 200 if whole else 503)

    return [Route("/health/live", live), Route("/health/ready", ready)]


async def _checks(gateway: Gateway | None) -> dict[str, str]:
    if gateway is None:
        return {"database": await sync_to_async(_django_database, thread_sensitive=False)()}
    checks = {"broker": "ok" if gateway.reader.connected else "does not answer"}
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            workers = await gateway.ready(_WORKERS)
    except (psycopg.Error, TimeoutError):
        return {"database": "does not answer", **checks}
    checks = {"database": "ok", **checks}
    if not workers:
        checks["deployments"] = "no deployment is enabled"
    for name, is_ready, count, failures, idle in workers:
        checks[f"deployment {name}"] = _worker_state(is_ready, count, failures, idle)
    return checks


def _worker_state(is_ready: bool, count: int, failures: str, idle: bool) -> str:
    if is_ready:
        return "ok"
    if failures:
        return f"worker failed: {failures}"
    if idle:
        return "workers are drained or unloaded"
    return "worker is loading its model" if count else "no worker is running"


def _django_database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return "ok"
    except DatabaseError:
        return "does not answer"
    finally:
        connection.close()
