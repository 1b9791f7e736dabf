"""The end of conversations whose time has come, of all tenants."""

from typing import Any, Final

import psycopg

_AT_ONCE: Final = 500
_EXPIRED: Final = """
DELETE FROM knowledge_conversation c USING (
    SELECT tenant_id, id FROM knowledge_conversation WHERE expires_at <= clock_timestamp()
     ORDER BY expires_at LIMIT %s) x
 WHERE c.tenant_id = x.tenant_id AND c.id = x.id
"""


def expire_conversations(connection: psycopg.Connection[Any]) -> int:
    """Deletes expired conversations with their messages, and gives their number.

    Args:
        connection: of ``portal_gateway``, in autocommit.
    """
    deleted = 0
    while True:
        found = connection.execute(_EXPIRED, [_AT_ONCE]).rowcount
        deleted += found
        if found < _AT_ONCE:
            return deleted
