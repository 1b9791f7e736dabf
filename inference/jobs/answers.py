"""Kept answers in their endpoint's shape: texts read for reasoning and calls as it was asked."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from inference.gateway.parsing.reading import Reading
from inference.gateway.reads import read_answer, with_reasoning
from inference.gateway.wire.common import Ending, Usage
from inference.gateway.wire.kept import kept_numbers
from inference.gateway.wire.reading import read_completion
from inference.jobs.catalogue import encoder_at


def kept_answer(
    *,
    job_id: UUID,
    admitted_at: datetime,
    model: str,
    text: str,
    finish_reason: str,
    usage: Usage,
    parameters: Mapping[str, Any],
    artefact: str | None,
) -> bytes:
    """A ``chat.completion`` object, a list of embeddings or a ranking, as JSON.

    Args:
        parameters: the job's: they say what it is, and how it is read.
        artefact: the path of the model that served; None where it is not known any more.
    """
    numbers = kept_numbers(
        parameters, job=job_id.hex, model=model, text=text, prompt_tokens=usage.prompt_tokens
    )
    if numbers is not None:
        return numbers
    reading = parameters.get("reading")
    ending = Ending("length" if finish_reason == "length" else "stop", usage)
    if reading is not None:
        text, ending = _read(msgspec.convert(reading, Reading), job_id.hex, text, ending, artefact)
    return read_completion(
        completion_id=f"chatcmpl-{job_id.hex}",
        created=int(admitted_at.timestamp()),
        model=model,
        text=text,
        ending=ending,
    )


def _read(
    reading: Reading, job: str, text: str, ending: Ending, artefact: str | None
) -> tuple[str, Ending]:
    text, ending = read_answer(reading, job, text, ending)
    encoder = encoder_at(artefact) if reading.thinking and artefact else None
    if encoder is not None:
        ending = with_reasoning(ending, encoder, [ending.reasoning])
    return text, ending
