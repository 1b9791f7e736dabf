"""What a chat template does with tools, found out by rendering a probe.

A template that takes tools writes a past call in the form that its model was taught. Whoever can
read the call back from there knows how to read the model's own.
"""

import re
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from inference.engines.base import Message, ToolCall
from inference.gateway.parsing.formats import FORMATS
from inference.gateway.parsing.forms import CallForm, form_of
from inference.gateway.parsing.reading import Reading, read_whole
from inference.markers import END_THINK, THINK
from portal.core.errors import Invalid

_QUESTION: Final = "probe question"
_RESULT: Final = "probe result"
_NAME: Final = "probe_function"
_ARGUMENTS: Final = {"probe_city": "probe value"}
_TOOLS: Final = msgspec.json.encode(
    [
        {
            "type": "function",
            "function": {
                "name": _NAME,
                "description": "A probe.",
                "parameters": {
                    "type": "object",
                    "properties": {"probe_city": {"type": "string", "description": "A city."}},
                    "required": ["probe_city"],
                },
            },
        }
    ]
).decode()
_BARE: Final = re.compile(r"[\w\s]*(\{.*\})\s*", re.DOTALL)
# Nine letters and digits: Mistral's templates take no other ids.
_CALL: Final = ToolCall("probe0001", _NAME, msgspec.json.encode(_ARGUMENTS).decode())
_TURNS: Final = (
    Message("user", _QUESTION),
    Message("assistant", "", (_CALL,)),
    Message("tool", _RESULT, call_id=_CALL.id),
)


class ToolSupport(msgspec.Struct, frozen=True):
    """What a template does with tools.

    Args:
        form: the name of the format in which its model calls; empty where it takes no tools.
        texts: it wants the arguments of calls as text, not as objects.
        nulls: it wants null as the content of a message that only calls, not an empty text.
        calling: how its model writes a call.
    """

    form: str = ""
    texts: bool = False
    nulls: bool = True
    calling: CallForm | None = None


class Render(Protocol):
    """Renders a conversation."""

    def __call__(
        self, messages: Sequence[Message], tools: str, support: ToolSupport, *, answering: bool
    ) -> str:
        """The text of a prompt.

        Args:
            tools: as OpenAI's JSON array; empty for none.
            answering: the prompt goes up to where the assistant's answer begins.

        Raises:
            Invalid: the template refuses this.
        """
        ...


_WAYS: Final = tuple(
    ToolSupport(texts=texts, nulls=nulls) for texts in (False, True) for nulls in (True, False)
)


def tool_support(render: Render, control: re.Pattern[str]) -> ToolSupport:
    """What the template behind ``render`` does with tools.

    Args:
        control: finds control tokens.
    """
    try:
        if _NAME not in render(_TURNS[:1], _TOOLS, _WAYS[0], answering=True):
            return ToolSupport()
    except Invalid:
        return ToolSupport()
    for way in _WAYS:
        try:
            written = render(_TURNS, _TOOLS, way, answering=False)
        except Invalid:
            continue
        _, found, answer = written.rpartition(_QUESTION)
        if not found or _RESULT not in answer:
            continue
        for form in FORMATS:
            if _reads_the_probe(form, answer, control):
                return replace(way, form=form, calling=form_of(form, answer))
    return ToolSupport()


def _reads_the_probe(form: str, answer: str, control: re.Pattern[str]) -> bool:
    turns = [answer]
    if FORMATS[form].bare:
        # A role may stand before what is an answer's beginning.
        found = (_BARE.fullmatch(turn) for turn in control.split(answer))
        turns = [turn[1] for turn in found if turn is not None]
    for turn in turns:
        calls = read_whole(Reading(form), "", turn).calls
        if len(calls) == 1 and calls[0].name == _NAME:
            return bool(msgspec.json.decode(calls[0].arguments) == _ARGUMENTS)
    return False


def reasons(source: str, added: frozenset[str]) -> bool:
    """Whether the model marks its reasoning: its template or its added tokens know the marks."""
    return all(mark in source or mark in added for mark in (THINK, END_THINK))
