"""Answers that are read for reasoning and calls before they are sent."""

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from inference.choices import ChoiceAnswer
from inference.gateway.parsing.reading import Reading, read_whole
from inference.gateway.wire.common import Ending, FinishReason, Usage, WholeChoice
from inference.inputs import InputEncoder
from inference.prompts import PromptEncoder

# What is longer is read or counted on a thread, so that it holds up nobody else.
INLINE_CHARS = 20_000


def read_answer(reading: Reading, job: str, text: str, ending: Ending) -> tuple[str, Ending]:
    """The text of a whole answer and how it ended, with its calls and its reasoning."""
    answer = read_whole(reading, job, text)
    ended = replace(ending, calls=answer.calls, reasoning=answer.reasoning)
    return answer.text, with_calls(ended, called=bool(answer.calls))


def read_choices(
    reading: Reading | None, job: str, answers: Sequence[ChoiceAnswer]
) -> tuple[WholeChoice, ...]:
    """The choices of a detailed answer, each read by itself."""
    return tuple(_choice(reading, job, index, answer) for index, answer in enumerate(answers))


def _choice(reading: Reading | None, job: str, index: int, answer: ChoiceAnswer) -> WholeChoice:
    reason: FinishReason = "length" if answer.reason == "length" else "stop"
    if reading is None:
        return WholeChoice(answer.text, reason, answer.logprobs)
    read = read_whole(reading, job, answer.text, index)
    return WholeChoice(
        read.text,
        reason_of(reason, called=bool(read.calls)),
        answer.logprobs,
        read.calls,
        read.reasoning,
    )


def reason_of(reason: FinishReason, *, called: bool) -> FinishReason:
    """Why an answer ended, if it has calls: one that was cut off stays so."""
    return "tool_calls" if called and reason == "stop" else reason


def with_calls(ending: Ending, *, called: bool) -> Ending:
    """How the answer ended, if it has calls."""
    return replace(ending, reason=reason_of(ending.reason, called=called))


async def counted(
    reading: Reading, encoder: PromptEncoder | InputEncoder, ending: Ending, texts: Sequence[str]
) -> Ending:
    """As ``with_reasoning``, where the model may reason; long texts hold up nobody else."""
    if not reading.thinking:
        return ending
    if sum(map(len, texts)) > INLINE_CHARS:
        return await asyncio.to_thread(with_reasoning, ending, encoder, texts)
    return with_reasoning(ending, encoder, texts)


def with_reasoning(
    ending: Ending, encoder: PromptEncoder | InputEncoder, texts: Sequence[str]
) -> Ending:
    """``ending`` with the tokens of the reasoning ``texts``, of all choices.

    They are counted in the model's own vocabulary, from the text: an answer that comes in one piece
    does not tell which of its tokens was where. So they are the same however it is delivered.
    """
    assert isinstance(encoder, PromptEncoder), "vectors are not read"
    usage = ending.usage
    tokens = min(sum(map(encoder.count, texts)), usage.completion_tokens)
    counted = Usage(usage.prompt_tokens, usage.completion_tokens, tokens)
    return replace(ending, usage=counted)
