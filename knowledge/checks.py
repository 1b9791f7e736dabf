"""System checks: a database that can't compare vectors is told before it is migrated."""

from collections.abc import Sequence
from typing import Any, Final

from django.apps.config import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connection

_INSTALLED: Final = "SELECT 1 FROM pg_extension WHERE extname = 'vector'"


@register(Tags.database)
def vectors_can_be_compared(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Knowledge bases keep vectors in columns of pgvector's type."""
    if not databases:
        return []
    with connection.cursor() as cursor:
        cursor.execute(_INSTALLED)
        if cursor.fetchone() is not None:
            return []
    return [
        Error(
            "The extension pgvector is not in this database.",
            hint="Install pgvector on the database server (Debian: postgresql-NN-pgvector), then "
            "run `manage.py roles`, or as a superuser in this database: CREATE EXTENSION vector;",
            id="knowledge.E001",
        )
    ]
