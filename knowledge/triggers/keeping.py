"""Nothing is kept longer than it is to be: events, and what runs were given and answered."""

from typing import Final, LiteralString

import psycopg

from knowledge.triggers.running import RECORD_DAYS

_A_STATEMENT: Final = 5000

# What has not been looked at yet is kept whatever its age: accepted is not lost.
_DROP: Final[dict[str, LiteralString]] = {
    "events": """
        DELETE FROM knowledge_streamevent WHERE id IN (
            SELECT id FROM knowledge_streamevent
             WHERE expires_at <= clock_timestamp() AND wake_at IS NULL LIMIT %(most)s)
    """,
    "contents": """
        UPDATE knowledge_triggerrun
           SET sealed = NULL, expires_at = created_at + %(days)s * interval '1 day'
         WHERE id IN (
            SELECT id FROM knowledge_triggerrun
             WHERE expires_at <= clock_timestamp() AND sealed IS NOT NULL AND wake_at IS NULL
             LIMIT %(most)s)
    """,
    "runs": """
        DELETE FROM knowledge_triggerrun WHERE id IN (
            SELECT id FROM knowledge_triggerrun
             WHERE expires_at <= clock_timestamp() AND sealed IS NULL AND wake_at IS NULL
             LIMIT %(most)s)
    """,
}


def drop_expired(database_url: str) -> dict[str, int]:
    """Drops what has been kept long enough; how much of each.

    Args:
        database_url: of ``portal_gateway``, which sees of these rows no more than when they end.
    """
    dropped = dict.fromkeys(_DROP, 0)
    with psycopg.connect(database_url, autocommit=True, connect_timeout=5) as connection:
        for what, statement in _DROP.items():
            values = {"most": _A_STATEMENT, "days": RECORD_DAYS}
            while (done := connection.execute(statement, values).rowcount) > 0:
                dropped[what] += done
    return dropped
