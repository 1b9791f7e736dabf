"""JSON character by character: whether what has come can still become an object."""

from typing import Final

MOST_DEPTH: Final = 64

_SPACE: Final = frozenset(" \t\n\r")
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_ESCAPES: Final = frozenset('"\\/bfnrtu')
_LITERALS: Final = {"t": "rue", "f": "alse", "n": "ull"}

# What may follow inside a number, by what came last of it.
_NUMBER: Final = {
    "minus": {"0": "zero", **dict.fromkeys("123456789", "integer")},
    "zero": {".": "point", "e": "e", "E": "e"},
    "integer": {**dict.fromkeys("0123456789", "integer"), ".": "point", "e": "e", "E": "e"},
    "point": dict.fromkeys("0123456789", "fraction"),
    "fraction": {**dict.fromkeys("0123456789", "fraction"), "e": "e", "E": "e"},
    "e": {"+": "sign", "-": "sign", **dict.fromkeys("0123456789", "exponent")},
    "sign": dict.fromkeys("0123456789", "exponent"),
    "exponent": dict.fromkeys("0123456789", "exponent"),
}
_NUMBER_STARTS: Final = {"-": "minus", **_NUMBER["minus"]}
_NUMBER_ENDS: Final = frozenset({"zero", "integer", "fraction", "exponent"})


class JsonScan:
    """Reads one JSON object from its opening brace on.

    Attributes:
        depth: how many objects and arrays are open.
        done: the object has been closed.
    """

    __slots__ = ("_closers", "_state", "_string_ends", "_wanted", "done")

    def __init__(self) -> None:
        self._closers: list[str] = []
        self._state = "start"
        self._string_ends = ""
        self._wanted = ""
        self.done = False

    @property
    def depth(self) -> int:
        return len(self._closers)

    def feed(self, char: str) -> bool:
        """Takes one more character; False if JSON does not allow it there."""
        state = self._state
        if state == "string":
            return self._in_string(char)
        if state in _NUMBER:
            following = _NUMBER[state].get(char)
            if following is not None:
                self._state = following
                return True
            if state not in _NUMBER_ENDS:
                return False
            state = self._state = "after"
        elif self._wanted:
            return self._in_word(char)
        if char in _SPACE:
            return state != "start"
        return self._between(state, char)

    def _in_string(self, char: str) -> bool:
        if char == '"':
            self._state = self._string_ends
        elif char == "\\":
            self._state, self._wanted = "escape", "?"
        else:
            return char >= " "
        return True

    def _in_word(self, char: str) -> bool:
        """Inside an escape, where ``_wanted`` counts hexadecimal digits, or a literal's letters."""
        if self._state == "literal":
            if char != self._wanted[0]:
                return False
            self._wanted = self._wanted[1:]
            if not self._wanted:
                self._state = "after"
            return True
        if self._wanted == "?":
            self._wanted = "xxxx" if char == "u" else ""
            if char not in _ESCAPES:
                return False
        elif char not in _HEX:
            return False
        else:
            self._wanted = self._wanted[1:]
        if not self._wanted:
            self._state = "string"
        return True

    def _between(self, state: str, char: str) -> bool:
        if state == "start":
            return char == "{" and self._open(char)
        if state in ("value", "first value"):
            return self._value(char) or (state == "first value" and self._close(char))
        if state in ("key", "first key"):
            if char == '"':
                self._state, self._string_ends = "string", "colon"
                return True
            return state == "first key" and self._close(char)
        if state == "colon":
            self._state = "value"
            return char == ":"
        if char == ",":
            self._state = "key" if self._closers[-1] == "}" else "value"
            return True
        return self._close(char)

    def _value(self, char: str) -> bool:
        if char in "{[":
            return self._open(char)
        if char == '"':
            self._state, self._string_ends = "string", "after"
        elif char in _LITERALS:
            self._state, self._wanted = "literal", _LITERALS[char]
        elif char in _NUMBER_STARTS:
            self._state = _NUMBER_STARTS[char]
        else:
            return False
        return True

    def _open(self, char: str) -> bool:
        self._closers.append("}" if char == "{" else "]")
        self._state = "first key" if char == "{" else "first value"
        return len(self._closers) <= MOST_DEPTH

    def _close(self, char: str) -> bool:
        if char != self._closers[-1]:
            return False
        self._closers.pop()
        self._state = "after"
        self.done = not self._closers
        return True
