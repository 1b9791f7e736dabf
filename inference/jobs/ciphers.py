"""The control plane's ciphers of payloads."""

from functools import cache
from uuid import UUID

from inference.payloads import Ciphers
from portal.core.crypto import Cipher, Keyring
from portal.core.env import env


@cache
def _ciphers() -> Ciphers:
    return Ciphers(Keyring.parse(env().encryption_keys.get_secret_value()))


def payload_cipher(tenant_id: UUID, version: int, wrapped: bytes) -> Cipher:
    """The cipher of a tenant's payloads under one of its data keys.

    Raises:
        InvalidCiphertext: the data key can't be unwrapped.
    """
    return _ciphers().of(tenant_id, version, wrapped)
