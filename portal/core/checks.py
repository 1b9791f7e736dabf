"""System checks: an installation that is not isolated does not start."""

from collections.abc import Sequence
from typing import Any

import psycopg
from django.apps.config import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register

from portal.core.boot import role_faults
from portal.core.env import env


@register(Tags.database)
def serving_roles_are_bound(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None, **kwargs: Any
) -> list[CheckMessage]:
    """The roles that serve must be bound by row-level security."""
    if not databases or env().freehold_database_role == "owner":
        return []
    faults: list[str] = []
    for url in (env().database_url_app, env().database_url_gateway, env().database_url_sealer):
        if url is not None:
            with psycopg.connect(url.get_secret_value(), connect_timeout=10) as connection:
                faults += role_faults(connection)
    return [Error(fault, id="portal.E001") for fault in dict.fromkeys(faults)]
