"""What names lead to, as the control plane reads it: when it needs it, inside a tenant's scope."""

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import structlog
from django.db import connection
from django.db.backends.utils import CursorWrapper
from psycopg.rows import namedtuple_row

from inference.gateway.catalogue import (
    OVERRIDES,
    QUERY,
    ROUTES,
    Named,
    Served,
    named_of,
    rows_of_names,
    served_of,
)
from inference.inputs import InputEncoder, load_encoder
from inference.models import Task
from inference.prompts import PromptEncoder
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

# An artefact never changes; its encoder takes a moment to load and is safe to share.
_encoders: dict[tuple[str, str], PromptEncoder | InputEncoder] = {}
_loading = threading.Lock()


def named_models(names: Collection[str]) -> dict[str, Named]:
    """What each of the names leads to in the scope's tenant; none that leads nowhere.

    A deployment whose artefact can't be read is as if it were not there.
    """
    with connection.cursor() as cursor:
        rows, routes, overrides = (_rows(cursor, query) for query in (QUERY, ROUTES, OVERRIDES))
    wanted = rows_of_names(names, rows, routes, overrides)
    found = named_of([s for s in map(_serve, wanted) if s is not None], routes, overrides)
    return {name: found[name] for name in names if name in found}


def encoder_at(path: str) -> PromptEncoder | None:
    """The encoder of the artefact in ``path``; None if it can't be read."""
    try:
        encoder = _encoder(path, Task.GENERATE)
    except (PortalError, OSError, ValueError) as fault:
        log.error("artefact.unreadable", path=path, error=str(fault))
        return None
    return encoder if isinstance(encoder, PromptEncoder) else None


def _rows(cursor: CursorWrapper, query: str) -> list[Any]:
    cursor.execute(query)
    make_row = namedtuple_row(cursor.cursor)
    return [make_row(row) for row in cursor.fetchall()]


def _serve(row: Any) -> Served | None:
    try:
        return served_of(row, _encoder(row.path, row.task))
    except (PortalError, OSError, ValueError) as fault:
        log.error("deployment.unreadable", deployment=row.deployment_name, error=str(fault))
        return None


def _encoder(path: str, task: str) -> PromptEncoder | InputEncoder:
    with _loading:
        encoder = _encoders.get((path, task))
        if encoder is None:
            encoder = _encoders[path, task] = load_encoder(Path(path), task)
        return encoder
