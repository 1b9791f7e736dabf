"""Secrets at rest: envelope encryption under numbered keys, and HMACs under numbered peppers.

A row's plaintext is encrypted under its tenant's data key; the data key is kept wrapped under a
key-encryption key that lives outside the database. Everything is AES-256-GCM (NIST SP 800-38D)
with a random 96-bit nonce, which allows 2**32 messages a key; keys that serve separate ends are
derived by HKDF-SHA256 (RFC 5869).
"""

import base64
import binascii
import hmac
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from portal.core.errors import PortalError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_VERSION_BYTES: Final = 2
# What a PostgreSQL smallint holds: versions are stored beside what they protect.
_MAX_VERSION: Final = 32_767
_WRAP_DOMAIN: Final = b"freehold data key v1\x00"
_ROW_FORMAT: Final = b"\x01"
_PART_BYTES: Final = 8


class KeyFault(ValueError):
    """A list of numbered keys is malformed; the message never shows key material."""


class InvalidCiphertext(PortalError):
    """A ciphertext was altered, belongs elsewhere, or was made under a key we don't hold."""

    code = "invalid_ciphertext"
    status = 500


def new_data_key() -> bytes:
    """A fresh random data key of 32 bytes."""
    return os.urandom(KEY_BYTES)


def _numbered_keys(text: str) -> Mapping[int, bytes]:
    """``1:<base64 of 32 bytes>,2:...`` as a read-only mapping in ascending order."""
    keys: dict[int, bytes] = {}
    for position, entry in enumerate(text.split(","), start=1):
        number, colon, encoded = entry.strip().partition(":")
        where = f"entry {position}"
        if not colon or not (number.isascii() and number.isdigit() and len(number) <= 5):
            raise KeyFault(f"{where} is not of the form NUMBER:BASE64")
        version = int(number)
        if not 1 <= version <= _MAX_VERSION:
            raise KeyFault(f"{where}: the number must be from 1 to {_MAX_VERSION}")
        if keys and version <= next(reversed(keys)):
            raise KeyFault(f"{where}: numbers must ascend, the newest key last")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise KeyFault(f"{where} (number {version}) is not base64") from None
        if len(key) != KEY_BYTES:
            raise KeyFault(
                f"{where} (number {version}) holds {len(key)} bytes; {KEY_BYTES} are needed"
            )
        if key in keys.values():
            raise KeyFault(f"{where} (number {version}) repeats an earlier key")
        keys[version] = key
    return MappingProxyType(keys)


class Keyring:
    """Key-encryption keys by number; the highest wraps, all of them unwrap."""

    __slots__ = ("_ciphers", "current")

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._ciphers = {version: AESGCM(key) for version, key in keys.items()}
        self.current: Final = max(keys)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1:<base64 of 32 bytes>,2:...``, newest last.

        Raises:
            KeyFault: naming the first entry that is wrong, without its value.
        """
        return cls(_numbered_keys(text))

    def __repr__(self) -> str:
        return f"Keyring(versions={sorted(self._ciphers)})"

    def wrap(self, data_key: bytes, *, context: bytes) -> bytes:
        """The data key encrypted under the current key, bound to ``context``.

        Returns:
            2 bytes of key number, 12 of nonce, 32 of ciphertext, 16 of tag.

        Raises:
            ValueError: the data key is not 32 bytes long.
        """
        if len(data_key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes, not {len(data_key)}")
        prefix = self.current.to_bytes(_VERSION_BYTES)
        nonce = os.urandom(_NONCE_BYTES)
        associated = _WRAP_DOMAIN + prefix + context
        return prefix + nonce + self._ciphers[self.current].encrypt(nonce, data_key, associated)

    def unwrap(self, blob: bytes, *, context: bytes) -> bytes:
        """The data key that ``wrap`` was given with the same context.

        Raises:
            InvalidCiphertext: altered, of another context, or under a key that is not held.
        """
        start = _VERSION_BYTES + _NONCE_BYTES
        if len(blob) != start + KEY_BYTES + _TAG_BYTES:
            raise InvalidCiphertext("The wrapped key has the wrong length.")
        prefix = blob[:_VERSION_BYTES]
        version = int.from_bytes(prefix)
        cipher = self._ciphers.get(version)
        if cipher is None:
            raise InvalidCiphertext(
                f"The key-encryption key {version} is missing.", data={"version": version}
            )
        try:
            return cipher.decrypt(
                blob[_VERSION_BYTES:start], blob[start:], _WRAP_DOMAIN + prefix + context
            )
        except InvalidTag:
            raise InvalidCiphertext("The wrapped key is altered or belongs elsewhere.") from None


def _derive(data_key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"freehold " + purpose).derive(data_key)


class Cipher:
    """Encrypts rows and fingerprints texts under one data key; safe to share among threads.

    Args:
        data_key: 32 bytes, from ``new_data_key`` or ``Keyring.unwrap``.
        purpose: what the rows are; a ciphertext of another purpose does not decrypt.

    Raises:
        ValueError: the data key is not 32 bytes long.
    """

    __slots__ = ("_aead", "_domain", "_fingerprint_key")

    def __init__(self, data_key: bytes, *, purpose: bytes = b"job payload") -> None:
        if len(data_key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes, not {len(data_key)}")
        self._aead = AESGCM(_derive(data_key, b"row encryption v1"))
        self._fingerprint_key = _derive(data_key, b"fingerprint v1")
        # Row id and number that follow have fixed lengths: no two rows give the same bytes.
        self._domain = _ROW_FORMAT + purpose

    def encrypt(self, plaintext: bytes, *, row_id: UUID, part: int | None = None) -> bytes:
        """The plaintext bound to its row: 1 byte of format, 12 of nonce, ciphertext and tag.

        Args:
            part: its number among the row's parts, from 0, where there are several.
        """
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._aead.encrypt(nonce, plaintext, self._bound_to(row_id, part))
        return _ROW_FORMAT + nonce + sealed

    def decrypt(self, blob: bytes, *, row_id: UUID, part: int | None = None) -> bytes:
        """The plaintext of this very row, or of this very part of it.

        Raises:
            InvalidCiphertext: altered, another row's, another purpose's or another tenant's.
        """
        start = len(_ROW_FORMAT) + _NONCE_BYTES
        if len(blob) < start + _TAG_BYTES or blob[:1] != _ROW_FORMAT:
            raise InvalidCiphertext("The ciphertext is not of a known format.")
        try:
            return self._aead.decrypt(blob[1:start], blob[start:], self._bound_to(row_id, part))
        except InvalidTag:
            raise InvalidCiphertext("The ciphertext is altered or belongs elsewhere.") from None

    def _bound_to(self, row_id: UUID, part: int | None) -> bytes:
        number = b"" if part is None else part.to_bytes(_PART_BYTES)
        return self._domain + row_id.bytes + number

    def fingerprint(self, text: bytes) -> bytes:
        """HMAC-SHA256 of the text, 32 bytes: equal texts of one tenant match, nobody can guess."""
        return hmac.digest(self._fingerprint_key, text, "sha256")


class Peppers:
    """Numbered HMAC keys for credentials; the highest digests, all of them verify."""

    __slots__ = ("_keys", "current")

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._keys = dict(keys)
        self.current: Final = max(keys)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1:<base64 of 32 bytes>,2:...``, newest last.

        Raises:
            KeyFault: naming the first entry that is wrong, without its value.
        """
        return cls(_numbered_keys(text))

    def __repr__(self) -> str:
        return f"Peppers(versions={sorted(self._keys)})"

    def digest(self, secret: bytes, version: int | None = None) -> tuple[int, bytes]:
        """The pepper's number, the current one by default, and the HMAC-SHA256 under it.

        Raises:
            KeyFault: there is no pepper of that number.
        """
        number = self.current if version is None else version
        key = self._keys.get(number)
        if key is None:
            raise KeyFault(f"there is no pepper {number}")
        return number, hmac.digest(key, secret, "sha256")

    def matches(self, secret: bytes, version: int, digest: bytes) -> bool:
        """Whether the digest is the secret's, compared in constant time.

        A pepper that is not held matches nothing.
        """
        key = self._keys.get(version)
        if key is None:
            return False
        return hmac.compare_digest(hmac.digest(key, secret, "sha256"), digest)
