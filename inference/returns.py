"""The way back: what a worker tells a gateway, and under which names in Redis.

One stream a gateway process carries the events of all its jobs. Nothing here is the truth: a
gateway that misses an event asks PostgreSQL.
"""

from typing import Final

import msgspec

from inference.engines.base import TokenLogprob

FIELD: Final = b"e"
STREAM_LENGTH: Final = 20_000
"""Entries kept for a gateway that reads slowly; one that falls behind asks PostgreSQL."""

STREAM_TTL_SECONDS: Final = 60
ALIVE_TTL_SECONDS: Final = 5


def stream_key(gateway: str) -> str:
    """The Redis stream that carries events to one gateway process."""
    return f"returns:{gateway}"


def alive_key(gateway: str) -> str:
    """Exists as long as the gateway process lives."""
    return f"gateway:{gateway}"


def cancel_channel(queue: str) -> str:
    """Where gateways publish the ids of jobs whose callers have gone."""
    return f"cancel:{queue}"


class Text(msgspec.Struct, array_like=True, tag=0, gc=False):
    """New text of a job; ``offset`` counts the completion tokens sent before it."""

    job: bytes
    fence: int
    offset: int
    tokens: int
    text: str


class Part(Text, array_like=True, tag=2, gc=False):
    """New text of one of a job's choices, where a text alone is not all that was asked for.

    ``reason`` is set, with no text, where this choice has ended before others.
    """

    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    reason: str = ""


class End(msgspec.Struct, array_like=True, tag=1, gc=False):
    """The job is settled, and this is how; sent after the commit.

    ``stop`` is the place of the stop sequence that ended it; -1 for none, or where it is not known.
    """

    job: bytes
    fence: int
    state: int
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error_code: str = ""
    error_message: str = ""
    stop: int = -1


Return = Text | Part | End

encode_returns: Final = msgspec.msgpack.Encoder().encode
decode_returns: Final = msgspec.msgpack.Decoder(list[Return]).decode
