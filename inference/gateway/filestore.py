"""Files in PostgreSQL, as the gateway writes and reads them: never in clear."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg

from inference.batches.content import (
    ADD_CHUNK,
    DELETE_CHUNKS,
    READ_CHUNK,
    seal,
    unseal,
)
from inference.gateway.keys import KeyFacts
from inference.gateway.link import Link
from inference.gateway.wire.files import FileFacts, in_use, no_room
from inference.gateway.wire.objects import FILE, Page, file_name, no_such
from inference.models.batches import LIVE_BATCH_STATES, FilePurpose, FileState
from inference.payloads import Ciphers
from portal.core.crypto import InvalidCiphertext
from portal.core.ids import uuid7

_BEGIN: Final = f"""
INSERT INTO inference_file (id, tenant_id, api_key_id, user_id, filename, purpose, state, size,
                            chunks, data_key_version, created_at)
VALUES (%(file)s, %(tenant)s, %(key)s, %(user)s, '', %(purpose)s, {FileState.INCOMPLETE.value}, 0,
        0, %(version)s, %(now)s)
"""

# Uploads of one tenant add their chunks one after the other, so that they can't outgrow its
# bound together.
_IN_TURN: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%(tenant)s::text, 7))"

_GROW: Final = f"""
UPDATE inference_file f SET size = size + %(bytes)s, chunks = chunks + 1
 WHERE f.tenant_id = %(tenant)s AND f.id = %(file)s AND f.state = {FileState.INCOMPLETE.value}
   AND %(bytes)s + (SELECT coalesce(sum(size), 0) FROM inference_file
                     WHERE tenant_id = %(tenant)s AND state < {FileState.DELETED.value})
       <= %(most)s
"""

_FINISH: Final = f"""
UPDATE inference_file SET state = {FileState.READY.value}, filename = %(filename)s,
       expires_at = %(expires)s
 WHERE tenant_id = %(tenant)s AND id = %(file)s AND state = {FileState.INCOMPLETE.value}
"""

_ABANDON: Final = f"""
DELETE FROM inference_file
 WHERE tenant_id = %(tenant)s AND id = %(file)s AND state = {FileState.INCOMPLETE.value}
"""

_FACTS: Final = f"""
SELECT f.id, f.filename, f.purpose, f.size, f.chunks, f.created_at, f.expires_at,
       f.data_key_version, k.wrapped
  FROM inference_file f
  JOIN tenants_tenantdatakey k ON k.tenant_id = f.tenant_id AND k.version = f.data_key_version
 WHERE f.tenant_id = %(tenant)s AND f.user_id = %(user)s AND f.state = {FileState.READY.value}
   AND (f.expires_at IS NULL OR f.expires_at > clock_timestamp())
"""

_LOCK: Final = f"""
SELECT EXISTS (SELECT 1 FROM inference_batch b
                WHERE b.tenant_id = f.tenant_id AND b.input_file_id = f.id
                  AND b.state = ANY(ARRAY{[s.value for s in LIVE_BATCH_STATES]}))
  FROM inference_file f
 WHERE f.tenant_id = %(tenant)s AND f.user_id = %(user)s AND f.id = %(file)s
   AND f.state = {FileState.READY.value}
   AND (f.expires_at IS NULL OR f.expires_at > clock_timestamp())
   FOR UPDATE OF f
"""

# The row stays, without its name, for the batches that refer to it.
_DELETE: Final = f"""
UPDATE inference_file SET state = {FileState.DELETED.value}, filename = ''
 WHERE tenant_id = %(tenant)s AND id = %(file)s
"""


def _named(key: KeyFacts, **more: Any) -> dict[str, Any]:
    return {"tenant": key.tenant_id, "user": key.user_id, **more}


class Upload:
    """A file that is being written: chunks in order, then its end.

    Until then nobody sees it; what is left of one that never ended is swept away.
    """

    def __init__(self, store: "FileStore", key: KeyFacts) -> None:
        self.file_id = uuid7()
        self.created_at = datetime.now(UTC)
        self.size = 0
        self._store = store
        self._key = key
        self._chunks = 0

    async def begin(self) -> None:
        names = {"purpose": FilePurpose.BATCH.value, "now": self.created_at}
        await self._store.execute(_BEGIN, self._names(**names))

    async def add(self, content: bytes) -> None:
        """Keeps the next piece, of at most ``CHUNK_BYTES``.

        Raises:
            Invalid: the tenant has no room for it.
        """
        key, store = self._key, self._store
        cipher = store.ciphers.of(key.tenant_id, key.data_key_version, key.data_key)
        names = self._names(
            number=self._chunks,
            content=seal(cipher, self.file_id, self._chunks, content),
            bytes=len(content),
            most=store.most_bytes,
        )

        async def work(connection: psycopg.AsyncConnection[Any]) -> bool:
            async with connection.transaction():
                await connection.execute(_IN_TURN, names)
                grown = await connection.execute(_GROW, names)
                if grown.rowcount:
                    await connection.execute(ADD_CHUNK, names)
                return bool(grown.rowcount)

        if not await store.link.use(work):
            raise no_room(store.most_bytes)
        self._chunks += 1
        self.size += len(content)

    async def finish(self, filename: str, seconds: int) -> FileFacts:
        """Makes the file one that can be read, for that many seconds from its creation."""
        expires = self.created_at + timedelta(seconds=seconds)
        await self._store.execute(_FINISH, self._names(filename=filename, expires=expires))
        return FileFacts(
            self.file_id,
            filename,
            FilePurpose.BATCH.value,
            self.size,
            self._chunks,
            self.created_at,
            expires,
            self._key.data_key_version,
            self._key.data_key,
        )

    async def abandon(self) -> None:
        """Leaves nothing of it."""
        await self._store.execute(_ABANDON, self._names())

    def _names(self, **more: Any) -> dict[str, Any]:
        key = self._key
        return {
            "tenant": key.tenant_id,
            "key": key.id,
            "user": key.user_id,
            "version": key.data_key_version,
            "file": self.file_id,
            **more,
        }


class FileStore:
    """The files of all tenants; each call names the key that it is for.

    A file belongs to the person who owns the key that it was made with: all keys of that person
    see it, and nobody else's.

    Args:
        most_bytes: how much a tenant's files may take together.
    """

    def __init__(self, link: Link, ciphers: Ciphers, *, most_bytes: int) -> None:
        self.link = link
        self.ciphers = ciphers
        self.most_bytes = most_bytes

    async def execute(self, query: str, names: dict[str, Any]) -> None:
        """One statement by itself."""

        async def work(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(query, names)

        await self.link.use(work)

    async def find(self, key: KeyFacts, file_id: UUID, *, param: str | None = None) -> FileFacts:
        """A file of the key's owner.

        Raises:
            NotFound: none, or deleted, or expired.
        """
        names = _named(key, file=file_id)
        rows = await self._rows(_FACTS + " AND f.id = %(file)s", names)
        if not rows:
            raise no_such(FILE, file_name(file_id), param)
        return FileFacts(*rows[0])

    async def page(self, key: KeyFacts, page: Page) -> tuple[list[FileFacts], bool]:
        """A page of the owner's files, and whether more follow it."""
        sign, order = (">", "ASC") if page.ascending else ("<", "DESC")
        query = f"""{_FACTS}
   AND (%(purpose)s::text IS NULL OR f.purpose = %(purpose)s)
   AND (%(after)s::uuid IS NULL OR f.id {sign} %(after)s)
 ORDER BY f.id {order} LIMIT %(limit)s"""
        names = _named(
            key,
            purpose=page.filters.get("purpose"),
            after=page.after,
            limit=page.limit + 1,
        )
        rows = await self._rows(query, names)
        return [FileFacts(*row) for row in rows[: page.limit]], len(rows) > page.limit

    async def chunk(self, key: KeyFacts, facts: FileFacts, number: int) -> bytes:
        """A piece of a file's content.

        Raises:
            InvalidCiphertext: it was altered or is gone.
        """
        names = _named(key, file=facts.id, number=number)
        rows = await self._rows(READ_CHUNK, names)
        if not rows:
            raise InvalidCiphertext("A piece of the file is missing.")
        cipher = self.ciphers.of(key.tenant_id, facts.data_key_version, facts.data_key)
        return unseal(cipher, facts.id, number, rows[0][0])

    async def delete(self, key: KeyFacts, file_id: UUID) -> None:
        """Deletes a file's content and name.

        Raises:
            NotFound: none.
            Conflict: a batch that has not ended reads it.
        """
        names = _named(key, file=file_id)

        async def work(connection: psycopg.AsyncConnection[Any]) -> tuple[bool] | None:
            async with connection.transaction():
                found: tuple[bool] | None = await (
                    await connection.execute(_LOCK, names)
                ).fetchone()
                if found == (False,):
                    await connection.execute(DELETE_CHUNKS, names)
                    await connection.execute(_DELETE, names)
                return found

        found = await self.link.use(work)
        if found is None:
            raise no_such(FILE, file_name(file_id))
        if found[0]:
            raise in_use(file_name(file_id))

    async def _rows(self, query: str, names: dict[str, Any]) -> Sequence[Any]:
        async def work(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
            return await (await connection.execute(query, names)).fetchall()

        return await self.link.read(work)
