"""What a job's payload holds, before it is encrypted."""

from array import array
from collections.abc import Sequence
from typing import Final

import msgspec

from inference.engines.base import Message


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
