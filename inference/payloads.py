"""What a job's payload holds, before it is encrypted, and the ciphers that encrypt it."""

from array import array
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from inference.engines.base import Message
from portal.core.crypto import Cipher, Keyring

_CIPHERS_KEPT: Final = 2048


class Prompt(msgspec.Struct, array_like=True, gc=False):
    """The prompt as the worker needs it: token ids (4 bytes each) and messages."""

    ids: bytes
    messages: list[tuple[str, str]]


_decoder: Final = msgspec.msgpack.Decoder(Prompt)
_encode: Final = msgspec.msgpack.Encoder().encode


def pack_prompt(ids: Sequence[int], messages: Sequence[Message]) -> bytes:
    """The plaintext of a payload."""
    return _encode(Prompt(array("I", ids).tobytes(), [(m.role, m.content) for m in messages]))


def unpack_prompt(plain: bytes) -> tuple[list[int], tuple[Message, ...]]:
    """Token ids and messages of a payload."""
    prompt = _decoder.decode(plain)
    ids = list(memoryview(prompt.ids).cast("I"))
    return ids, tuple(Message(role, content) for role, content in prompt.messages)


class Ciphers:
    """Unwrapped data keys by tenant and version; a wrapped key never changes."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._known: dict[tuple[UUID, int], Cipher] = {}

    def of(self, tenant_id: UUID, version: int, wrapped: bytes) -> Cipher:
        cipher = self._known.get((tenant_id, version))
        if cipher is None:
            if len(self._known) >= _CIPHERS_KEPT:
                self._known.clear()
            cipher = Cipher(self._keyring.unwrap(wrapped, context=tenant_id.bytes))
            self._known[tenant_id, version] = cipher
        return cipher
