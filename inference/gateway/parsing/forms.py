"""How a model is held to calls of tools: what it writes around names and arguments.

A format says what is read as a call; a form is the one way of that format in which a model was
taught to write them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from inference.engines.base import Calls, CallTag
from inference.markers import (
    DEEPSEEK_CALL,
    DEEPSEEK_CALL_END,
    DEEPSEEK_CALLS,
    DEEPSEEK_CALLS_END,
    DEEPSEEK_SEPARATOR,
    HERMES_CALL,
    HERMES_END,
    MISTRAL_ARGUMENTS,
    MISTRAL_CALLS,
)


@dataclass(frozen=True, slots=True)
class CallForm:
    """One way to write calls; see ``Calls``.

    Args:
        begin: what stands before a call's arguments, with ``%s`` for its name.
        single: the model's template takes no more than one call at a time.
    """

    opener: str
    begin: str
    end: str
    first: str = ""
    between: str = ""
    after: str = ""
    single: bool = False


_HERMES: Final = CallForm(
    HERMES_CALL,
    '\n{"name": "%s", "arguments": ',
    f"}}\n{HERMES_END}",
    between=f"\n{HERMES_CALL}",
)
_LLAMA: Final = CallForm("", '{"name": "%s", "parameters": ', "}", single=True)
_MISTRAL: Final = CallForm(
    MISTRAL_CALLS, '{"name": "%s", "arguments": ', "}", first=" [", between=", ", after="]"
)
_MISTRAL_MARKED: Final = CallForm(
    MISTRAL_CALLS, f"%s{MISTRAL_ARGUMENTS}", "", between=MISTRAL_CALLS
)
_DEEPSEEK: Final = CallForm(
    DEEPSEEK_CALLS,
    f"{DEEPSEEK_CALL}function{DEEPSEEK_SEPARATOR}%s\n```json\n",
    f"\n```{DEEPSEEK_CALL_END}",
    between="\n",
    after=DEEPSEEK_CALLS_END,
)
_DEEPSEEK_V31: Final = CallForm(
    DEEPSEEK_CALLS,
    f"{DEEPSEEK_CALL}%s{DEEPSEEK_SEPARATOR}",
    DEEPSEEK_CALL_END,
    after=DEEPSEEK_CALLS_END,
)


def form_of(tool_format: str, written: str) -> CallForm:
    """The form in which a model of that format writes calls.

    Args:
        written: a call as the model's template has it.
    """
    if tool_format == "mistral":
        return _MISTRAL_MARKED if MISTRAL_ARGUMENTS in written else _MISTRAL
    if tool_format == "deepseek":
        return _DEEPSEEK if f"function{DEEPSEEK_SEPARATOR}" in written else _DEEPSEEK_V31
    return _LLAMA if tool_format == "llama" else _HERMES


def held_calls(
    form: CallForm, tools: Iterable[tuple[str, str]], *, forced: bool, one: bool
) -> Calls:
    """What an answer in that form is held to.

    Args:
        tools: names, and the JSON schemas of their arguments as text.
        forced: the answer must call.
        one: it calls at most once.
    """
    tags = tuple(CallTag(name, form.begin % name, schema, form.end) for name, schema in tools)
    return Calls(
        tags,
        form.opener,
        form.first,
        form.between,
        form.after,
        forced=forced,
        one=one or form.single,
    )
