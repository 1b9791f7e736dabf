"""How models write calls of tools: one format for each family of models."""

import re
from dataclasses import dataclass
from typing import Final

from inference.markers import (
    DEEPSEEK_CALL,
    DEEPSEEK_CALL_END,
    DEEPSEEK_CALLS,
    DEEPSEEK_CALLS_END,
    DEEPSEEK_SEPARATOR,
    HERMES_CALL,
    HERMES_END,
    LLAMA_CALL,
    MISTRAL_ARGUMENTS,
    MISTRAL_CALLS,
    MISTRAL_ID,
)

_NAME: Final = r"(?P<name>[A-Za-z0-9_.-]{1,64})"
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SPACE: Final = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One way to write calls.

    Args:
        openers: a call follows one of them.
        before: what may stand between an opener and the call's object. With a name in it the
            object is the arguments, else it holds name and arguments.
        dropped: marks that say nothing by themselves.
        after: marks that say nothing where they directly follow a call.
        bare: a call needs no opener at an answer's beginning; it must then name its arguments.
        again: nor where it directly follows another.
        id_chars: how long the ids of calls are, where the template takes no others.
    """

    name: str
    openers: tuple[str, ...]
    before: re.Pattern[str] = _SPACE
    dropped: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    bare: bool = False
    again: bool = False
    id_chars: int = 0


_separator: Final = re.escape(DEEPSEEK_SEPARATOR)
_arguments: Final = re.escape(MISTRAL_ARGUMENTS)
_call_id: Final = re.escape(MISTRAL_ID)

_MISTRAL: Final = ToolFormat(
    "mistral",
    (MISTRAL_CALLS,),
    before=re.compile(rf"\s*(?:\[\s*)?|\s*{_NAME}(?:{_call_id}\w+)?{_arguments}\s*"),
    after=(",", "]"),
    again=True,
    id_chars=9,
)
_DEEPSEEK: Final = ToolFormat(
    "deepseek",
    (DEEPSEEK_CALL,),
    before=re.compile(
        rf"\s*function{_separator}{_NAME}\n```json\s*|\s*(?P<other>[A-Za-z0-9_.-]{{1,64}})"
        rf"{_separator}\s*"
    ),
    dropped=(DEEPSEEK_CALLS,),
    after=("```", DEEPSEEK_CALL_END, DEEPSEEK_CALLS_END),
)
_HERMES: Final = ToolFormat("hermes", (HERMES_CALL,), after=(HERMES_END,))
_LLAMA: Final = ToolFormat("llama", (LLAMA_CALL,), after=(";",), bare=True, again=True)

FORMATS: Final = {f.name: f for f in (_MISTRAL, _DEEPSEEK, _HERMES, _LLAMA)}
"""By name; what can be mistaken for another stands behind it."""
