"""Files as batches read and write them, inside the tenant's scope."""

from functools import cache
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import F
from django.utils import timezone

from inference.batches.content import (
    ADD_CHUNK,
    CHUNK_BYTES,
    READ_CHUNK,
    file_ciphers,
    line_ciphers,
    seal,
    unseal,
)
from inference.models import Batch, File, FilePurpose, FileState
from inference.payloads import Ciphers
from portal.core.crypto import Cipher, InvalidCiphertext, Keyring
from portal.core.env import env
from tenants.models import TenantDataKey


@cache
def _of_files() -> Ciphers:
    return file_ciphers(Keyring.parse(env().encryption_keys.get_secret_value()))


@cache
def _of_lines() -> Ciphers:
    return line_ciphers(Keyring.parse(env().encryption_keys.get_secret_value()))


def _wrapped(tenant_id: UUID, version: int) -> bytes:
    key = TenantDataKey.objects.get(tenant_id=tenant_id, version=version)
    return bytes(key.wrapped)


def line_cipher(tenant_id: UUID, version: int) -> Cipher:
    """The cipher of what a batch keeps of its lines."""
    return _of_lines().of(tenant_id, version, _wrapped(tenant_id, version))


def file_cipher(file: File) -> Cipher:
    """The cipher of a file's content."""
    version = file.data_key_version
    return _of_files().of(file.tenant_id, version, _wrapped(file.tenant_id, version))


class InputFile:
    """Reads a file that was uploaded; a piece that was read last is kept."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._cipher = file_cipher(file)
        self._number = -1
        self._piece = b""

    def piece_at(self, offset: int) -> bytes:
        """The file's bytes from an offset to the end of their chunk; none at its end.

        Raises:
            InvalidCiphertext: the file was altered, or parts of it are gone.
        """
        if offset >= self._file.size:
            return b""
        # Every chunk of an upload but the last is full.
        number, within = divmod(offset, CHUNK_BYTES)
        return self._chunk(number)[within:]

    def read(self, start: int, length: int) -> bytes:
        """That many bytes from ``start`` on.

        Raises:
            InvalidCiphertext: as for ``piece_at``.
        """
        found = bytearray()
        while len(found) < length:
            piece = self.piece_at(start + len(found))
            if not piece:
                raise InvalidCiphertext("The file is shorter than it was.")
            found += piece[: length - len(found)]
        return bytes(found)

    def _chunk(self, number: int) -> bytes:
        if number != self._number:
            names: dict[str, Any] = {
                "tenant": self._file.tenant_id,
                "file": self._file.id,
                "number": number,
            }
            with connection.cursor() as cursor:
                cursor.execute(READ_CHUNK, names)
                row = cursor.fetchone()
            if row is None:
                raise InvalidCiphertext("A piece of the file is missing.")
            self._piece = unseal(self._cipher, self._file.id, number, bytes(row[0]))
            self._number = number
        return self._piece


_SUFFIXES: Final = {"output_file": "output", "error_file": "errors"}


def append(batch: Batch, field: str, lines: list[bytes]) -> None:
    """Adds lines to the batch's file of results or of errors, which is made with the first ones.

    Args:
        field: ``output_file`` or ``error_file``.
    """
    if not lines:
        return
    file = getattr(batch, field)
    if file is None:
        file = _result_file(batch, _SUFFIXES[field])
        setattr(batch, field, file)
        batch.save(update_fields=[field])
    cipher, content = file_cipher(file), b"".join(lines)
    pieces = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
    for number, piece in enumerate(pieces, start=file.chunks):
        names: dict[str, Any] = {
            "tenant": file.tenant_id,
            "file": file.id,
            "number": number,
            "content": seal(cipher, file.id, number, piece),
        }
        with connection.cursor() as cursor:
            cursor.execute(ADD_CHUNK, names)
    File.objects.filter(pk=file.pk).update(
        size=F("size") + len(content), chunks=F("chunks") + len(pieces)
    )
    file.size, file.chunks = file.size + len(content), file.chunks + len(pieces)


def _result_file(batch: Batch, suffix: str) -> File:
    file = File(
        tenant_id=batch.tenant_id,
        api_key_id=batch.api_key_id,
        user_id=batch.user_id,
        filename=f"batch_{batch.id.hex}_{suffix}.jsonl",
        purpose=FilePurpose.BATCH_OUTPUT,
        state=FileState.INCOMPLETE,
        data_key_version=batch.input_file.data_key_version,
        created_at=timezone.now(),
    )
    file.save(force_insert=True)
    return file
