"""Signatures by the Standard Webhooks scheme (github.com/standard-webhooks/standard-webhooks).

Symmetric, version 1: HMAC-SHA256 over ``id.timestamp.body`` under the bytes that the secret holds
in base64 behind ``whsec_``.
"""

import base64
import hmac
import os
from collections.abc import Sequence
from typing import Final
from uuid import UUID

PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = 32


def new_secret() -> str:
    """A fresh secret of 256 random bits as receivers keep it."""
    return PREFIX + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


def message_id(delivery_id: UUID) -> str:
    """The ``webhook-id``: the same for every attempt of a delivery."""
    return f"msg_{delivery_id.hex}"


def signed_headers(
    secrets: Sequence[str], *, webhook_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The scheme's three headers, with one signature under each secret.

    Args:
        secrets: the present one first.
        timestamp: of this attempt, in seconds since 1970.
    """
    content = f"{webhook_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, content) for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, content, "sha256")).decode()
