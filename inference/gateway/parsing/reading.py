"""How an answer is read, which its request decides, and the reading itself."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from inference.gateway.parsing.deltas import (
    Answer,
    Call,
    CallArguments,
    CallBroken,
    CallStart,
    Delta,
    Reasoning,
    Text,
)
from inference.gateway.parsing.formats import FORMATS
from inference.gateway.parsing.reasoning import ReasoningReader
from inference.gateway.parsing.tools import ToolReader

_ID_CHARS: Final = 24


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an answer is to be read; an answer that needs no reading has none.

    Args:
        tools: the format of its calls; empty where the request has no tools.
        thinking: whether the model may think aloud first, or the prompt has opened that already.
        one_call: at most one call is wanted.
    """

    tools: str = ""
    thinking: Literal["", "maybe", "open"] = ""
    one_call: bool = False


class AnswerReader:
    """Reads one answer as it comes.

    Args:
        job: the job's id in hex, of which the ids of calls are made: read again, an answer has
            the same.
        choice: which of the job's answers it is.

    Attributes:
        reasoning: what the model thought, so far.
    """

    def __init__(self, reading: Reading, job: str, choice: int = 0) -> None:
        form = FORMATS.get(reading.tools)
        self._thinking = (
            ReasoningReader(opened=reading.thinking == "open") if reading.thinking else None
        )
        self._tools = (
            ToolReader(form, _ids(job, choice, form.id_chars), one_call=reading.one_call)
            if form
            else None
        )
        self._reasoning: list[str] = []

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def called(self) -> bool:
        """Whether the answer has a whole call."""
        return self._tools is not None and self._tools.made > 0

    def push(self, text: str) -> list[Delta]:
        """What is known after ``text``, beyond what was told before."""
        if self._thinking is None:
            return self._answered(text)
        reasoning, text = self._thinking.push(text)
        return [*self._thought(reasoning), *self._answered(text)]

    def finish(self) -> list[Delta]:
        """What the answer's end makes known."""
        out: list[Delta] = []
        if self._thinking is not None:
            reasoning, text = self._thinking.finish()
            out = [*self._thought(reasoning), *self._answered(text)]
        if self._tools is not None:
            out += _joined(self._tools.finish())
        return out

    def _thought(self, text: str) -> list[Delta]:
        if not text:
            return []
        self._reasoning.append(text)
        return [Reasoning(text)]

    def _answered(self, text: str) -> list[Delta]:
        if not text:
            return []
        return [Text(text)] if self._tools is None else _joined(self._tools.push(text))


def read_whole(reading: Reading, job: str, text: str, choice: int = 0) -> Answer:
    """The answer that the whole of ``text`` is."""
    reader = AnswerReader(reading, job, choice)
    said: list[str] = []
    starts: dict[int, CallStart] = {}
    arguments: dict[int, str] = {}
    for delta in (*reader.push(text), *reader.finish()):
        if isinstance(delta, Text):
            said.append(delta.text)
        elif isinstance(delta, CallStart):
            starts[delta.index] = delta
        elif isinstance(delta, CallArguments):
            arguments[delta.index] = arguments.get(delta.index, "") + delta.fragment
        elif isinstance(delta, CallBroken):
            del starts[delta.index]
            said.append(delta.raw)
    calls = tuple(Call(s.id, s.name, arguments[s.index]) for s in starts.values())
    return Answer("".join(said), reader.reasoning, calls)


def _joined(deltas: Iterable[Delta]) -> list[Delta]:
    """The same, with neighbours of one kind made one."""
    out: list[Delta] = []
    pieces: list[str] = []
    for delta in deltas:
        last = out[-1] if out else None
        if isinstance(delta, Text) and isinstance(last, Text):
            pieces.append(delta.text)
        elif isinstance(delta, CallArguments) and isinstance(last, CallArguments):
            pieces.append(delta.fragment)
        else:
            _close(out, pieces)
            out.append(delta)
    _close(out, pieces)
    return out


def _close(out: list[Delta], pieces: list[str]) -> None:
    if not pieces:
        return
    last, more = out[-1], "".join(pieces)
    if isinstance(last, Text):
        out[-1] = Text(last.text + more)
    elif isinstance(last, CallArguments):
        out[-1] = CallArguments(last.index, last.fragment + more)
    pieces.clear()


def _ids(job: str, choice: int, chars: int) -> Callable[[int], str]:
    answer = f"{job}.{choice}" if choice else job

    def call_id(index: int) -> str:
        digest = hashlib.blake2b(f"{answer}:{index}".encode(), digest_size=16).hexdigest()
        return digest[:chars] if chars else f"call_{digest[:_ID_CHARS]}"

    return call_id
