"""Batches in PostgreSQL, as the gateway makes, reads and cancels them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from inference.gateway.keys import KeyFacts
from inference.gateway.link import Link
from inference.gateway.wire.batches import (
    WINDOW_SECONDS,
    BatchFacts,
    NewBatch,
    no_input,
    over_already,
    too_many_batches,
)
from inference.gateway.wire.objects import BATCH, FILE, Page, batch_name, file_name, no_such
from inference.models.batches import LIVE_BATCH_STATES, BatchState, FilePurpose, FileState
from portal.core.ids import uuid7

_LIVE: Final = f"ARRAY{[state.value for state in LIVE_BATCH_STATES]}"

# Held until the batch is there, so that its input can't be deleted in between.
_INPUT: Final = f"""
SELECT purpose FROM inference_file
 WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND id = %(input)s
   AND state = {FileState.READY.value}
   AND (expires_at IS NULL OR expires_at > clock_timestamp())
   FOR SHARE
"""

_COUNT: Final = f"""
SELECT count(*) FROM inference_batch WHERE tenant_id = %(tenant)s AND state = ANY({_LIVE})
"""

_CREATE: Final = f"""
INSERT INTO inference_batch (id, tenant_id, api_key_id, user_id, endpoint, model, metadata,
    input_file_id, output_seconds, state, errors, total, completed, failed, prompt_tokens,
    completion_tokens, lines_read, bytes_read, fed_through, waiting_for, wake_at, created_at,
    expires_at)
VALUES (%(batch)s, %(tenant)s, %(key)s, %(user)s, %(endpoint)s, '', %(metadata)s, %(input)s,
    %(output_seconds)s, {BatchState.VALIDATING.value}, '[]', 0, 0, 0, 0, 0, 0, 0, 0, '', %(now)s,
    %(now)s, %(expires)s)
"""

_FACTS: Final = """
SELECT id, endpoint, model, metadata, input_file_id, output_file_id, error_file_id, state, errors,
       total, completed, failed, prompt_tokens, completion_tokens, created_at, expires_at,
       in_progress_at, finalizing_at, cancelling_at, ended_at
  FROM inference_batch WHERE tenant_id = %(tenant)s AND user_id = %(user)s
"""

_CANCEL: Final = f"""
UPDATE inference_batch SET state = {BatchState.CANCELLING.value},
       cancelling_at = clock_timestamp(), wake_at = clock_timestamp()
 WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND id = %(batch)s
   AND state IN ({BatchState.VALIDATING.value}, {BatchState.IN_PROGRESS.value})
"""


class BatchStore:
    """The batches of all tenants; each call names the key that it is for.

    A batch belongs to the person who owns the key that it was made with, as files do.

    Args:
        most_live: batches that a tenant may have which have not ended.
    """

    def __init__(self, link: Link, *, most_live: int) -> None:
        self._link = link
        self._most_live = most_live

    async def create(self, key: KeyFacts, new: NewBatch) -> BatchFacts:
        """Makes a batch that is to be validated next.

        Raises:
            NotFound: there is no such input file.
            Invalid: it is none of a batch.
            TooMany: the tenant has too many live batches.
        """
        now, batch_id = datetime.now(UTC), uuid7()
        names = {
            "tenant": key.tenant_id,
            "key": key.id,
            "user": key.user_id,
            "batch": batch_id,
            "input": new.input_file_id,
            "endpoint": new.endpoint,
            "metadata": new.metadata and msgspec.json.encode(new.metadata).decode(),
            "output_seconds": new.output_seconds,
            "now": now,
            "expires": now + timedelta(seconds=WINDOW_SECONDS),
        }

        async def work(connection: psycopg.AsyncConnection[Any]) -> tuple[str, int] | None:
            async with connection.transaction():
                found = await (await connection.execute(_INPUT, names)).fetchone()
                if found is None:
                    return None
                live = await (await connection.execute(_COUNT, names)).fetchone()
                assert live is not None
                if found[0] == FilePurpose.BATCH and live[0] < self._most_live:
                    await connection.execute(_CREATE, names)
                return found[0], live[0]

        made = await self._link.use(work)
        if made is None:
            raise no_such(FILE, file_name(new.input_file_id), "input_file_id")
        purpose, live = made
        if purpose != FilePurpose.BATCH:
            raise no_input(purpose)
        if live >= self._most_live:
            raise too_many_batches(self._most_live)
        return await self.find(key, batch_id)

    async def find(self, key: KeyFacts, batch_id: UUID) -> BatchFacts:
        """A batch of the key's owner.

        Raises:
            NotFound: none.
        """
        found = await self._read(
            _FACTS + " AND id = %(batch)s",
            {"tenant": key.tenant_id, "user": key.user_id, "batch": batch_id},
        )
        if not found:
            raise no_such(BATCH, batch_name(batch_id))
        return found[0]

    async def page(self, key: KeyFacts, page: Page) -> tuple[list[BatchFacts], bool]:
        """A page of the owner's batches, newest first, and whether more follow it."""
        query = f"""{_FACTS} AND (%(after)s::uuid IS NULL OR id < %(after)s)
 ORDER BY id DESC LIMIT %(limit)s"""
        names = {
            "tenant": key.tenant_id,
            "user": key.user_id,
            "after": page.after,
            "limit": page.limit + 1,
        }
        found = await self._read(query, names)
        return found[: page.limit], len(found) > page.limit

    async def cancel(self, key: KeyFacts, batch_id: UUID) -> BatchFacts:
        """Lets a batch end early; one that is being cancelled already stays as it is.

        Raises:
            NotFound: none.
            Conflict: it has ended, or is about to.
        """
        names = {"tenant": key.tenant_id, "user": key.user_id, "batch": batch_id}

        async def work(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(_CANCEL, names)

        await self._link.use(work)
        facts = await self.find(key, batch_id)
        if facts.state not in (BatchState.CANCELLING, BatchState.CANCELLED):
            raise over_already(batch_id, facts.state)
        return facts

    async def _read(self, query: str, names: dict[str, Any]) -> list[BatchFacts]:
        async def work(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
            return await (await connection.execute(query, names)).fetchall()

        return [BatchFacts(*row) for row in await self._link.read(work)]
