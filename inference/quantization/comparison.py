"""What each method leaves of a model: size, perplexity and agreement with fp32, on one text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from inference.quantization.quality import Answers, Progress, agreement, read
from inference.quantization.writing import (
    GROUP_SIZES,
    Plan,
    check_source,
    fp32_bytes,
    load_reference,
    pack,
    pieces_of,
    prefixed,
    state,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One method beside fp32.

    Args:
        weights: the method, and how many columns share a scale: ``int8-g32``.
        size_ratio: bytes of weights over their bytes in fp32.
        perplexity: of the text.
        perplexity_change: relative to fp32.
        top1_agreement: share of places, 0 to 1, where the likeliest token is that of fp32.
        tokens: how many places were compared.
    """

    weights: str
    size_ratio: float
    perplexity: float
    perplexity_change: float
    top1_agreement: float
    tokens: int


def compare_methods(
    source: Path,
    *,
    text: str,
    group_size: int | None,
    most_tokens: int,
    progress: Progress,
) -> Iterator[Line]:
    """A line for fp32, for bfloat16 computed in it, and for each method, computed in fp32.

    Nothing is written; one model is in memory at a time.

    Args:
        group_size: of all methods; their own if None.
        most_tokens: of the text; 0 reads all of it.

    Raises:
        NotFound, Invalid: as ``quantize_artefact``.
    """
    plans = [
        Plan(method, group_size or own, text, most_tokens=most_tokens)
        for method, own in GROUP_SIZES.items()
    ]
    for plan in plans:
        check_source(source, plan)
    model = load_reference(source)
    pieces = pieces_of(source, model, plans[0])
    whole = fp32_bytes(model)
    reference = read(model, pieces, prefixed(progress, "fp32"))
    yield _line("fp32", 1.0, reference, reference)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, local_files_only=True
    ).eval()
    size = sum(parameter.nbytes for parameter in model.parameters())
    yield _line("bf16", size / whole, read(model, pieces, prefixed(progress, "bf16")), reference)
    for plan in plans:
        name = f"{plan.method}-g{plan.group_size}"
        model = load_reference(source)
        pack(model, plan.scheme, prefixed(progress, name))
        size = sum(tensor.nbytes for _, tensor in state(model))
        yield _line(name, size / whole, read(model, pieces, prefixed(progress, name)), reference)


def _line(weights: str, size_ratio: float, answers: Answers, reference: Answers) -> Line:
    return Line(
        weights,
        size_ratio,
        answers.perplexity,
        answers.perplexity / reference.perplexity - 1,
        agreement(reference, answers),
        len(answers.likeliest),
    )
