"""The ASGI application: either plane, or both in one process for the embedded default."""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from portal.core.boot import refuse_unbound_role
from portal.core.env import env
from portal.core.heap import freeze_heap


def create_app() -> ASGIApp:
    """What ``FREEHOLD_PLANES`` says: the control plane, the data plane, or both."""
    django.setup()
    from inference.gateway.app import Straight, routes, server_fault
    from inference.gateway.core import Gateway
    from knowledge.applications.calling import Apps
    from knowledge.applications.gateway import app_routes
    from portal.health import health_routes
    from portal.metrics import Metrics, metrics_routes
    from portal.site.metrics import HTTP

    planes = env().freehold_planes
    if planes in ("both", "control"):
        refuse_unbound_role(env().database_url("app"))
    gateway = Gateway(env()) if planes in ("both", "data") else None
    metrics = Metrics(env(), gateway, control=planes in ("both", "control"))
    parts: list[BaseRoute] = [*health_routes(gateway), *metrics_routes(metrics)]
    direct = routes(gateway) if gateway is not None else []
    parts += direct
    apps = Apps() if planes in ("both", "control") else None
    if apps is not None:
        parts += [*app_routes(apps, HTTP.answered), *_control_plane()]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        freeze_heap()
        async with contextlib.AsyncExitStack() as stack:
            if gateway is not None:
                await stack.enter_async_context(gateway)
            if apps is not None:
                await stack.enter_async_context(apps)
            stack.push_async_callback(metrics.close)
            yield

    app = Starlette(routes=parts, lifespan=lifespan, exception_handlers={Exception: server_fault})
    return Straight(app, direct)


def _control_plane() -> list[BaseRoute]:
    from django.conf import settings
    from django.core.asgi import get_asgi_application

    return [
        Mount("/static", StaticFiles(directory=settings.STATIC_ROOT, check_dir=False)),
        Mount("/", cast(ASGIApp, get_asgi_application())),
    ]
