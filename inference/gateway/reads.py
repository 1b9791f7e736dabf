"""Answers that are read for reasoning and calls before they are sent."""

import asyncio

from msgspec.structs import replace

from inference.gateway.parsing.reading import Reading, read_whole
from inference.gateway.wire.common import Ending, Usage
from inference.inputs import InputEncoder
from inference.prompts import PromptEncoder

# Reasoning longer than this is counted on a thread, so that it holds up nobody else.
_INLINE_CHARS = 20_000


def read_answer(reading: Reading, job: str, text: str, ending: Ending) -> tuple[str, Ending]:
    """The text of a whole answer and how it ended, with its calls and its reasoning."""
    answer = read_whole(reading, job, text)
    ended = replace(ending, calls=answer.calls, reasoning=answer.reasoning)
    return answer.text, with_calls(ended, called=bool(answer.calls))


def with_calls(ending: Ending, *, called: bool) -> Ending:
    """How the answer ended, if it has calls: an answer that was cut off stays one."""
    return replace(ending, reason="tool_calls") if called and ending.reason == "stop" else ending


async def counted(
    reading: Reading, encoder: PromptEncoder | InputEncoder, ending: Ending, text: str
) -> Ending:
    """``ending`` with the tokens of the reasoning ``text``, where the model may reason."""
    assert isinstance(encoder, PromptEncoder), "vectors are not read"
    if not reading.thinking:
        return ending
    if len(text) > _INLINE_CHARS:
        return await asyncio.to_thread(with_reasoning, ending, encoder, text)
    return with_reasoning(ending, encoder, text)


def with_reasoning(ending: Ending, encoder: PromptEncoder, text: str) -> Ending:
    """``ending`` with the tokens of the reasoning ``text``.

    They are counted in the model's own vocabulary, from the text: an answer that comes in one piece
    does not tell which of its tokens was where. So they are the same however it is delivered.
    """
    usage = ending.usage
    tokens = min(encoder.count(text), usage.completion_tokens)
    counted = Usage(usage.prompt_tokens, usage.completion_tokens, tokens)
    return replace(ending, usage=counted)
