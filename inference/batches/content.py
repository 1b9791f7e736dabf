"""Content of files at rest: pieces under the tenant's data key, each bound to its place."""

from typing import Final
from uuid import UUID

from inference.payloads import Ciphers
from portal.core.crypto import Cipher, Keyring

CHUNK_BYTES: Final = 1_000_000
"""The longest piece of a file before it is encrypted."""

# The gateway's role crosses tenants, so each statement names the tenant.
ADD_CHUNK: Final = """
INSERT INTO inference_filechunk (tenant_id, file_id, number, content)
VALUES (%(tenant)s, %(file)s, %(number)s, %(content)s)
"""
READ_CHUNK: Final = """
SELECT content FROM inference_filechunk
 WHERE tenant_id = %(tenant)s AND file_id = %(file)s AND number = %(number)s
"""
DELETE_CHUNKS: Final = """
DELETE FROM inference_filechunk WHERE tenant_id = %(tenant)s AND file_id = %(file)s
"""


def file_ciphers(keyring: Keyring) -> Ciphers:
    """The ciphers of files' content."""
    return Ciphers(keyring, purpose=b"file content")


def line_ciphers(keyring: Keyring) -> Ciphers:
    """The ciphers of what a batch keeps of its lines."""
    return Ciphers(keyring, purpose=b"batch line")


def seal(cipher: Cipher, file_id: UUID, number: int, content: bytes) -> bytes:
    """A piece of a file as it is kept; ``number`` counts from 0."""
    return cipher.encrypt(content, row_id=file_id, part=number)


def unseal(cipher: Cipher, file_id: UUID, number: int, content: bytes) -> bytes:
    """A piece of a file as it was given.

    Raises:
        InvalidCiphertext: altered, or of another place.
    """
    return cipher.decrypt(content, row_id=file_id, part=number)
