"""Which generation of a key's secret a caller holds, and whether it still opens."""

from datetime import datetime
from typing import Protocol

from portal.core.crypto import Peppers


class KeySecrets(Protocol):
    """A key's present secret and, for the overlap after a rotation, the one before it."""

    @property
    def secret_hmac(self) -> bytes: ...
    @property
    def pepper_version(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def former_secret_hmac(self) -> bytes | None: ...
    @property
    def former_pepper_version(self) -> int | None: ...
    @property
    def former_until(self) -> datetime | None: ...


def proven_generation(
    secret: str, key: KeySecrets, *, peppers: Peppers, now: datetime
) -> int | None:
    """The generation that the secret proves at this moment, or None.

    The former secret works until ``former_until``, and not in that very moment. All compares take
    constant time.
    """
    given = secret.encode()
    if peppers.matches(given, key.pepper_version, key.secret_hmac):
        return key.generation
    former, pepper, until = key.former_secret_hmac, key.former_pepper_version, key.former_until
    if former is None or pepper is None or until is None or until <= now:
        return None
    return key.generation - 1 if peppers.matches(given, pepper, former) else None
