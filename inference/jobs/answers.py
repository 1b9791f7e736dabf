"""Kept answers, as chat completions: read for reasoning and calls as their requests asked."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from inference.gateway.parsing.reading import Reading
from inference.gateway.reads import read_answer, with_reasoning
from inference.gateway.wire.common import Ending, Usage
from inference.gateway.wire.reading import read_completion
from inference.jobs.catalogue import encoder_at


def kept_completion(
    *,
    job_id: UUID,
    admitted_at: datetime,
    model: str,
    text: str,
    finish_reason: str,
    usage: Usage,
    reading: Any,
    artefact: str | None,
) -> bytes:
    """A ``chat.completion`` object as JSON.

    Args:
        reading: how it is read, as the job's parameters have it; None for no more than text.
        artefact: the path of the model that served; None where it is not known any more.
    """
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
