"""Answers that are read for reasoning and calls, in the words of chat completions."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from inference.gateway.parsing.deltas import (
    Call,
    CallArguments,
    CallStart,
    Delta,
    Reasoning,
    Text,
)
from inference.gateway.wire.common import Ending
from inference.gateway.wire.response import ChunkEncoder, completion, json_text, one_line

_encode: Final = msgspec.json.Encoder().encode


def read_completion(
    *, completion_id: str, created: int, model: str, text: str, ending: Ending
) -> bytes:
    """A ``chat.completion`` object as JSON; ``created`` in Unix seconds."""
    more = ending.calls or ending.reasoning
    return completion(
        completion_id=completion_id,
        created=created,
        model=model,
        text=text,
        finish_reason=ending.reason,
        usage=ending.usage,
        message=whole_message(text, ending.reasoning, ending.calls) if more else None,
    )


class ReadChunkEncoder(ChunkEncoder):
    """The same stream, of an answer that may be read for reasoning and calls."""

    __slots__ = ()

    def delta(self, delta: Delta) -> bytes:
        """A part of the answer."""
        body = self._before + delta_json(delta)
        return body + b',"logprobs":null,"finish_reason":null}' + self._tail


def whole_message(text: str, reasoning: str, calls: Sequence[Call]) -> bytes:
    """The assistant's message; its content is null where it only calls."""
    content = b"null" if calls and not text else json_text(text)
    parts = [b'{"role":"assistant","content":', content, b',"refusal":null,"annotations":[]']
    if reasoning:
        parts += (b',"reasoning_content":', json_text(reasoning))
    if calls:
        parts += (b',"tool_calls":', one_line(_encode([_call(call) for call in calls])))
    return b"".join((*parts, b"}"))


def delta_json(delta: Delta) -> bytes:
    """The ``delta`` of a chunk."""
    if isinstance(delta, Text):
        return b'{"content":' + json_text(delta.text) + b"}"
    if isinstance(delta, Reasoning):
        return b'{"reasoning_content":' + json_text(delta.text) + b"}"
    if isinstance(delta, CallStart):
        function = {"name": delta.name, "arguments": ""}
        call: dict[str, Any] = {"index": delta.index, "id": delta.id, "type": "function"}
        return b'{"tool_calls":[' + _encode({**call, "function": function}) + b"]}"
    if isinstance(delta, CallArguments):
        return (
            b'{"tool_calls":[{"index":%d,"function":{"arguments":' % delta.index
            + json_text(delta.fragment)
            + b"}}]}"
        )
    return b'{"content":' + json_text(delta.raw) + b"}"


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
