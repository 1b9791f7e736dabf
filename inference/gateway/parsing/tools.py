"""Reads calls of tools out of a text as it comes.

The text is read character by character, so that calls and text come out the same however it was
cut into pieces. A call is told of as soon as its name and the beginning of its arguments are there;
the arguments follow as the model writes them, checked as they come: what is passed on is always
the beginning of a JSON object. What turns out to be no call stays text.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from inference.gateway.parsing.deltas import CallArguments, CallBroken, CallStart, Delta, Text
from inference.gateway.parsing.formats import NAME, ToolFormat
from inference.gateway.parsing.scan import JsonScan

_MOST_BEFORE: Final = 256
"""Characters between an opener and a call's object, which no format needs."""

_KEYS: Final = frozenset({"name", "arguments", "parameters", "type", "id"})
_FIRST_KEY: Final = re.compile(r'\{\s*"([^"\\]*)"')
_HEAD: Final = re.compile(
    r'\{\s*(?:"(?:type|id)"\s*:\s*"[^"\\]*"\s*,\s*)*'
    r'"name"\s*:\s*"([A-Za-z0-9_.-]{1,64})"\s*,\s*"(?:arguments|parameters)"\s*:\s*\{'
)


class _Object(msgspec.Struct):
    name: str = ""
    arguments: dict[str, msgspec.Raw] | str | None = None
    parameters: dict[str, msgspec.Raw] | str | None = None


_decode: Final = msgspec.json.Decoder(_Object).decode
_decode_arguments: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class ToolReader:
    """Reads one answer.

    Args:
        call_id: the id of the call at an index.
        one_call: calls behind the first are dropped.

    Attributes:
        made: how many whole calls there were.
    """

    def __init__(
        self, form: ToolFormat, call_id: Callable[[int], str], *, one_call: bool = False
    ) -> None:
        self._form = form
        self._call_id = call_id
        self._one_call = one_call
        self._out: list[Delta] = []
        self._space: list[str] = []  # white space, and behind it what could become a mark
        self._core = ""
        self._starting = form.bare
        self._following = False
        self._call: _Call | None = None
        self._index = 0
        self.made = 0

    def push(self, text: str) -> list[Delta]:
        """What is known after ``text``, beyond what was told before."""
        for char in text:
            if self._call is not None:
                self._in_call(self._call, char)
            else:
                self._in_text(char)
        return self._taken()

    def finish(self) -> list[Delta]:
        """What the end of the text makes known."""
        if self._call is not None:
            self._break(self._call)
        elif not self.made or self._core:
            self._say(self._taken_space() + self._core)
        self._core = ""
        return self._taken()

    def _taken(self) -> list[Delta]:
        out, self._out = self._out, []
        return out

    def _say(self, text: str) -> None:
        if text:
            self._out.append(Text(text))

    # -- between calls -------------------------------------------------------------------------

    def _in_text(self, char: str) -> None:
        if not self._core and char.isspace():
            self._space.append(char)
            return
        self._core += char
        core, form = self._core, self._form
        if core in form.openers:
            self._open(core)
        elif core == "{" and (self._starting or (self._following and form.again)):
            self._in_call(self._open(""), core)
        elif core in form.dropped or (self._following and core in form.after):
            self._core = ""
        elif not self._may_become_a_mark(core):
            self._give_up_one(core)

    def _may_become_a_mark(self, core: str) -> bool:
        form = self._form
        marks = (*form.openers, *form.dropped, *(form.after if self._following else ()))
        return any(mark.startswith(core) for mark in marks)

    def _give_up_one(self, core: str) -> None:
        """The first character is text; a mark may begin behind it."""
        self._starting = self._following = False
        self._core = ""
        self._say(self._taken_space() + core[0])
        for char in core[1:]:
            self._in_text(char)

    def _taken_space(self) -> str:
        space = "".join(self._space)
        self._space.clear()
        return space

    def _open(self, opener: str) -> "_Call":
        self._call = _Call(self._taken_space() + opener)
        self._core = ""
        return self._call

    # -- inside a call -------------------------------------------------------------------------

    def _in_call(self, call: "_Call", char: str) -> None:
        call.raw.append(char)
        if call.scan is None:
            self._before_object(call, char)
            return
        scan = call.scan
        call.object.append(char)
        if not scan.feed(char):
            self._break(call)
        elif call.started:
            self._argument(call, char)
        else:
            self._in_wrapper(call, scan, char)

    def _before_object(self, call: "_Call", char: str) -> None:
        if char != "{":
            call.before += char
            if len(call.before) > _MOST_BEFORE:
                self._break(call)
            return
        found = self._form.before.fullmatch(call.before)
        if found is None:
            self._break(call)
            return
        call.scan = JsonScan()
        call.scan.feed(char)
        call.object.append(char)
        name = next((text for text in found.groupdict().values() if text), None)
        if name is not None:
            call.named = True
            self._start(call, name)
            self._argument(call, char)

    def _in_wrapper(self, call: "_Call", scan: JsonScan, char: str) -> None:
        if scan.done:
            self._at_once(call)
        elif char == "{" and scan.depth == 2:
            head = _HEAD.fullmatch("".join(call.object))
            if head is not None:
                self._start(call, head[1])
                self._argument(call, char)
        elif char == '"' and scan.depth == 1 and not call.first_key_seen:
            first = _FIRST_KEY.fullmatch("".join(call.object))
            if first is not None:
                call.first_key_seen = True
                if first[1] not in _KEYS:
                    self._break(call)

    def _start(self, call: "_Call", name: str) -> None:
        call.started = True
        call.dropped = self._one_call and self.made > 0
        if not call.dropped:
            call.index = self._index
            self._index += 1
            self._out.append(CallStart(call.index, self._call_id(call.index), name))

    def _argument(self, call: "_Call", char: str) -> None:
        assert call.scan is not None
        if not call.ended:
            if not call.dropped:
                self._out.append(CallArguments(call.index, char))
            call.ended = call.scan.depth == (0 if call.named else 1) and len(call.object) > 1
        if call.scan.done:
            self._close(call)

    def _at_once(self, call: "_Call") -> None:
        """A whole object whose members stand in another order than usual."""
        made = _call_of("".join(call.object), needs_arguments=self._form.bare)
        if made is None:
            self._break(call)
            return
        self._start(call, made[0])
        if not call.dropped:
            self._out.append(CallArguments(call.index, made[1]))
        self._close(call)

    def _close(self, call: "_Call") -> None:
        if not call.dropped:
            self.made += 1
        self._call = None
        self._starting, self._following = False, True

    def _break(self, call: "_Call") -> None:
        if call.started and not call.dropped:
            self._out.append(CallBroken(call.index, "".join(call.raw)))
        elif not call.started:
            self._say("".join(call.raw))
        self._call = None
        self._starting = self._following = False


class _Call:
    """What is known of the call that is being read."""

    __slots__ = (
        "before",
        "dropped",
        "ended",
        "first_key_seen",
        "index",
        "named",
        "object",
        "raw",
        "scan",
        "started",
    )

    def __init__(self, raw: str) -> None:
        self.raw = [raw]
        self.before = ""
        self.object: list[str] = []
        self.scan: JsonScan | None = None
        self.named = False  # before its object, which then is the arguments
        self.started = False  # told of
        self.ended = False  # its arguments are whole
        self.dropped = False
        self.first_key_seen = False
        self.index = -1


def _call_of(text: str, *, needs_arguments: bool) -> tuple[str, str] | None:
    """Name and arguments in an object that holds both; None if it is no call."""
    try:
        found = _decode(text)
        given = found.parameters if found.arguments is None else found.arguments
        if isinstance(given, str):
            _decode_arguments(given)
            arguments = given
        elif given is None and needs_arguments:
            return None
        else:
            arguments = msgspec.json.encode(given or {}).decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return (found.name, arguments) if NAME.fullmatch(found.name) else None
