"""The served models as the control plane reads them: when it needs them, not every few seconds."""

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import structlog
from django.db import connection
from psycopg.rows import namedtuple_row

from inference.gateway.catalogue import QUERY, Served, served_of
from inference.prompts import PromptEncoder
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

_NAMED: Final = f"{QUERY} AND m.name = ANY(%s)"

# An artefact never changes; its encoder takes a moment to load and is safe to share.
_encoders: dict[str, PromptEncoder] = {}
_loading = threading.Lock()


def served_models(names: Collection[str]) -> dict[str, Served]:
    """Those of the named models that are served now; none whose artefact can't be read."""
    with connection.cursor() as cursor:
        cursor.execute(_NAMED, [list(names)])
        make_row = namedtuple_row(cursor.cursor)
        found = [_serve(make_row(row)) for row in cursor.fetchall()]
    return {served.model_name: served for served in found if served is not None}


def _serve(row: Any) -> Served | None:
    try:
        return served_of(row, _encoder(row.path))
    except (PortalError, OSError, ValueError) as fault:
        log.error("deployment.unreadable", deployment=row.deployment_name, error=str(fault))
        return None


def _encoder(path: str) -> PromptEncoder:
    with _loading:
        encoder = _encoders.get(path)
        if encoder is None:
            encoder = _encoders[path] = PromptEncoder.load(Path(path))
        return encoder
