"""The parts of an answer, as they come and as a whole."""

import msgspec


class Text(msgspec.Struct, frozen=True):
    """More of what is said to the caller."""

    text: str


class Reasoning(msgspec.Struct, frozen=True):
    """More of what the model thinks before it answers."""

    text: str


class CallStart(msgspec.Struct, frozen=True):
    """A tool is called; its arguments follow. ``index`` counts the calls of the answer from 0."""

    index: int
    id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True):
    """More of a call's arguments; all fragments joined are one JSON object, as the model wrote."""

    index: int
    fragment: str


class CallBroken(msgspec.Struct, frozen=True):
    """What began as a call turned out to be none: ``raw`` is all that was written of it."""

    index: int
    raw: str


Delta = Text | Reasoning | CallStart | CallArguments | CallBroken


class Call(msgspec.Struct, frozen=True):
    """A whole call; ``arguments`` is a JSON object as text."""

    id: str
    name: str
    arguments: str


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    text: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
