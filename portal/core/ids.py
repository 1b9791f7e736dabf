"""Identifiers: UUID version 7 (RFC 9562, section 5.7), ordered by time of creation."""

import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """A new UUIDv7, strictly greater than every one made before it in this process.

    48 bits of Unix milliseconds, then 12 bits of sub-millisecond fraction (RFC 9562,
    section 6.2, method 3), then 62 random bits.
    """
    global _last
    with _lock:
        now = time.time_ns()
        # 60 bits: milliseconds and a fraction of 1/4096 ms.
        stamp = (now // 1_000_000 << 12) | (now % 1_000_000 * 4096 // 1_000_000)
        stamp = max(stamp, _last + 1)
        _last = stamp
    random = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
    return UUID(int=(stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random)
