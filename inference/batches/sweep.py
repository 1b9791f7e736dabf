"""The content of files that have expired goes away, and what broken uploads left."""

from typing import Final

import psycopg

from inference.models import LIVE_BATCH_STATES, FilePurpose, FileState

_BATCH: Final = 20
_LIVE: Final = f"ARRAY{[state.value for state in LIVE_BATCH_STATES]}"

# Input of a batch that has not ended is kept until it has.
_EXPIRED: Final = f"""
WITH old AS (
    SELECT f.tenant_id, f.id FROM inference_file f
     WHERE f.state = {FileState.READY.value} AND f.expires_at < clock_timestamp()
       AND NOT EXISTS (SELECT 1 FROM inference_batch b
                        WHERE b.tenant_id = f.tenant_id AND b.input_file_id = f.id
                          AND b.state = ANY({_LIVE}))
     LIMIT {_BATCH} FOR UPDATE OF f SKIP LOCKED
), chunks AS (
    DELETE FROM inference_filechunk c USING old
     WHERE c.tenant_id = old.tenant_id AND c.file_id = old.id
)
UPDATE inference_file f SET state = {FileState.DELETED.value}, filename = ''
  FROM old WHERE f.tenant_id = old.tenant_id AND f.id = old.id
"""

# Results of a batch that is under way are incomplete for as long as that takes.
_BROKEN: Final = f"""
DELETE FROM inference_file
 WHERE state = {FileState.INCOMPLETE.value} AND purpose = '{FilePurpose.BATCH.value}'
   AND created_at < clock_timestamp() - interval '1 day'
"""


def sweep_files(database_url: str) -> int:
    """One round over the files of all tenants; how many were dropped."""
    dropped = 0
    with psycopg.connect(
        database_url, autocommit=True, application_name="files", connect_timeout=5
    ) as connection:
        while expired := connection.execute(_EXPIRED).rowcount:
            dropped += expired
        return dropped + connection.execute(_BROKEN).rowcount
