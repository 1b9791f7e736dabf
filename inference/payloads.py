"""What a job's payload holds, before it is encrypted, and the ciphers that encrypt it."""

from array import array
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from inference.engines.base import Embedding, Message, Structure, ToolCall
from portal.core.crypto import Cipher, Keyring

_CIPHERS_KEPT: Final = 2048


class Extras(msgspec.Struct, frozen=True, omit_defaults=True):
    """What few callers ask for; ``Sampling`` says what each means.

    Attributes:
        tools, embedding: see ``GenerationRequest``.
        n: how many answers are generated to the one prompt.
    """

    top_k: int = 0
    min_tokens: int = 0
    logprobs: int | None = None
    structure: Structure | None = None
    tools: str = ""
    embedding: Embedding | None = None
    n: int = 1

    @property
    def detailed(self) -> bool:
        """Whether the answer is more than a text: several, or with log probabilities."""
        return self.n > 1 or self.logprobs is not None


class _Turn(msgspec.Struct, array_like=True, gc=False, omit_defaults=True):
    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


class _Packed(msgspec.Struct, array_like=True, gc=False, omit_defaults=True):
    ids: bytes
    messages: list[_Turn]
    stop: list[str]
    extras: Extras | None = None


class Prompt(msgspec.Struct, frozen=True):
    """What the caller wrote, as the worker needs it: none of it is kept anywhere in clear."""

    ids: Sequence[int]
    messages: tuple[Message, ...]
    stop: tuple[str, ...] = ()
    extras: Extras | None = None


_decoder: Final = msgspec.msgpack.Decoder(_Packed)
_encode: Final = msgspec.msgpack.Encoder().encode


def pack_prompt(prompt: Prompt) -> bytes:
    """The plaintext of a payload."""
    ids = array("I", prompt.ids).tobytes()
    return _encode(_Packed(ids, _turns(prompt.messages), list(prompt.stop), prompt.extras))


def _turns(messages: Sequence[Message]) -> list[Any]:
    """Messages as ``_Turn`` has them; of most of them two members say all."""
    return [
        (m.role, m.content, m.calls, m.call_id) if m.calls or m.call_id else (m.role, m.content)
        for m in messages
    ]


def fingerprint_text(prompt: Prompt) -> bytes:
    """What a prompt's fingerprint is made of: its messages as a JSON array of [role, content].

    A message with calls, or with a call's result, has these behind its content.
    """
    return msgspec.json.encode(_turns(prompt.messages))


def unpack_prompt(plain: bytes) -> Prompt:
    """The prompt of a payload."""
    packed = _decoder.decode(plain)
    return Prompt(
        list(memoryview(packed.ids).cast("I")),
        tuple(Message(t.role, t.content, t.calls, t.call_id) for t in packed.messages),
        tuple(packed.stop),
        packed.extras,
    )


class Ciphers:
    """Unwrapped data keys by tenant and version; a wrapped key never changes."""

    def __init__(self, keyring: Keyring, *, purpose: bytes = b"job payload") -> None:
        self._keyring = keyring
        self._purpose = purpose
        self._known: dict[tuple[UUID, int], Cipher] = {}

    def of(self, tenant_id: UUID, version: int, wrapped: bytes) -> Cipher:
        cipher = self._known.get((tenant_id, version))
        if cipher is None:
            if len(self._known) >= _CIPHERS_KEPT:
                self._known.clear()
            data_key = self._keyring.unwrap(wrapped, context=tenant_id.bytes)
            cipher = Cipher(data_key, purpose=self._purpose)
            self._known[tenant_id, version] = cipher
        return cipher
