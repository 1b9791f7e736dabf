"""The last use of keys on the control plane: written at once, and seldom."""

import threading
import time
from datetime import datetime
from typing import Final

import structlog
from django.db import DatabaseError, connection

from portal.core.actors import Context
from portal.core.tenancy import tenant_scope
from tenants.key_uses import WRITE_EVERY_SECONDS, WRITE_USES, KeyUse, parameters

log = structlog.get_logger(__name__)

_MOST_REMEMBERED: Final = 10_000
_written: dict[KeyUse, float] = {}
_lock = threading.Lock()


def note_use(context: Context, use: KeyUse, at: datetime) -> None:
    """Writes that a key was used, unless this process did so a moment ago; never raises for it.

    Args:
        context: of the key, whose tenant's scope it is written in.
    """
    if not _is_due(use):
        return
    try:
        with tenant_scope(context), connection.cursor() as cursor:
            cursor.execute(WRITE_USES, parameters({use: at}))
    except DatabaseError as fault:
        log.warning("key_use.unwritten", api_key_id=str(use.api_key_id), error=str(fault))


def _is_due(use: KeyUse) -> bool:
    now = time.monotonic()
    with _lock:
        last = _written.get(use)
        if last is not None and now - last < WRITE_EVERY_SECONDS:
            return False
        if len(_written) >= _MOST_REMEMBERED:
            _written.clear()
        _written[use] = now
    return True
