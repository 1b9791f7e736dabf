"""What an API key looks like: ``fh_<public id>_<secret><checksum>``.

The public id finds the key's row and may be shown; the secret carries 190 bits of randomness. The
checksum (CRC-32 of everything before it) lets us and secret scanners refuse a typing error
without a query. It proves nothing: the secret's HMAC does.
"""

import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "fh_"
PUBLIC_ID_CHARS: Final = 12
SECRET_CHARS: Final = 32
CHECKSUM_CHARS: Final = 6
TOKEN_CHARS: Final = len(PREFIX) + PUBLIC_ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Values of two digits at a time: every call on /v1 comes through here.
_PAIRS: Final = {
    first + second: high * 62 + low
    for high, first in enumerate(_ALPHABET)
    for low, second in enumerate(_ALPHABET)
}
_SHAPE: Final = re.compile(
    f"{PREFIX}([0-9A-Za-z]{{{PUBLIC_ID_CHARS}}})_([0-9A-Za-z]{{{SECRET_CHARS}}})"
    f"([0-9A-Za-z]{{{CHECKSUM_CHARS}}})"
)


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A well-formed token's two parts; nothing says yet that the key exists."""

    public_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; ``token`` is what the caller gets to see once."""

    public_id: str
    secret: str = field(repr=False)
    token: str = field(repr=False)


def generate(public_id: str = "") -> NewKey:
    """A new random key, or a new secret for the key of this public id."""
    public_id = public_id or _random(PUBLIC_ID_CHARS)
    secret = _random(SECRET_CHARS)
    body = f"{PREFIX}{public_id}_{secret}"
    return NewKey(public_id, secret, body + _checksum(body))


def parse(token: str) -> ParsedKey | None:
    """The parts of a token, or None if its shape or checksum is wrong; never raises."""
    if len(token) != TOKEN_CHARS:
        return None
    match = _SHAPE.fullmatch(token)
    if match is None:
        return None
    public_id, secret, checksum = match.groups()
    value = (_PAIRS[checksum[:2]] * 3844 + _PAIRS[checksum[2:4]]) * 3844 + _PAIRS[checksum[4:]]
    if value != zlib.crc32(token[:-CHECKSUM_CHARS].encode()):
        return None
    return ParsedKey(public_id, secret)


def display(public_id: str) -> str:
    """How a key is shown where its secret must not be: ``fh_<public id>_…``."""
    return f"{PREFIX}{public_id}_…"


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_CHARS):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
