"""From a decoder's complaint to a refusal that names the place and what belongs there."""

import re
from typing import Final

import msgspec

from portal.core.errors import Invalid

DecodeFault = msgspec.MsgspecError | UnicodeDecodeError | RecursionError

# Depth is looked for in the head of a refused body only, so a hostile body stays cheap.
_DEPTH_SCAN_BYTES: Final = 64 * 1024
_SHOWN_CHARS: Final = 64

_WORDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
    "null": "null",
}

_EXPECTED: Final = re.compile(r"Expected `([a-z| ]+)`, got `([a-z]+)`")
_FIELD: Final = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)

# The closing quote is optional so that an unfinished string can't make the scan start over.
_STRINGS_AND_BRACKETS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)

# Everything that is whole, possessively, and then half of a surrogate pair.
_LONE_SURROGATE: Final = re.compile(
    rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})*+"
    rb"\\u[dD][89a-fA-F]",
    re.DOTALL,
)


def shown(text: str) -> str:
    """``text`` as it may stand in a message: one line, printable, at most 64 characters."""
    head = text[:_SHOWN_CHARS]
    clean = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in head)
    return clean + ("..." if len(text) > _SHOWN_CHARS else "")


def refusal_of(body: bytes, fault: DecodeFault, max_depth: int) -> Invalid:
    """The refusal for a ``body`` that the decoder gave up on with ``fault``."""
    if isinstance(fault, RecursionError) or _deeper_than(body, max_depth):
        return Invalid(
            f"The body is nested too deeply: at most {max_depth} levels are allowed.",
            code="body_too_deep",
        )
    if isinstance(fault, msgspec.ValidationError):
        return _wrong_shape(str(fault))
    return _not_json(body, fault)


def _deeper_than(body: bytes, limit: int) -> bool:
    depth = 0
    for match in _STRINGS_AND_BRACKETS.finditer(body[:_DEPTH_SCAN_BYTES]):
        token = match[0][:1]
        if token in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif token in b"]}":
            depth -= 1
    return False


def _not_json(body: bytes, fault: DecodeFault) -> Invalid:
    if not body.strip():
        return Invalid("The body is empty: send a JSON object.", code="invalid_json")
    if isinstance(fault, UnicodeDecodeError):
        return Invalid("The body is not valid UTF-8.", code="invalid_unicode")
    if lone := _LONE_SURROGATE.match(body):
        return Invalid(
            f"The body has a lone surrogate escape ending at byte {lone.end()}: text must be "
            "valid Unicode.",
            code="invalid_unicode",
        )
    detail = str(fault).removeprefix("JSON is malformed: ")
    return Invalid(f"The body is not valid JSON: {detail[:100]}.", code="invalid_json")


def _wrong_shape(complaint: str) -> Invalid:
    what, _, path = complaint.rpartition(" - at `$")
    if not what:
        what, path = complaint, ""
    place = path.rstrip("`").removeprefix(".")
    if field := _FIELD.fullmatch(what):
        return _wrong_field(place, field[2], missing=field[1].startswith("missing"))
    if types := _EXPECTED.fullmatch(what):
        return _wrong_type(place, expected=types[1], got=types[2])
    return Invalid(
        f"Invalid '{place}': the number is out of range.", code="invalid_value", param=place or None
    )


def _wrong_field(place: str, name: str, *, missing: bool) -> Invalid:
    param = f"{place}.{shown(name)}" if place else shown(name)
    if missing:
        return Invalid(
            f"Missing required parameter: '{param}'.",
            code="missing_required_parameter",
            param=param,
        )
    return Invalid(f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)


def _wrong_type(place: str, *, expected: str, got: str) -> Invalid:
    if not place:
        return Invalid(
            f"The body must be a JSON object, but it is {_WORDS.get(got, got)}.",
            code="invalid_type",
        )
    words = [_WORDS.get(name, name) for name in expected.split(" | ") if name != "null"]
    wanted = words[0] if len(words) == 1 else f"one of {' or '.join(words)}"
    return Invalid(
        f"Invalid type for '{place}': expected {wanted}, but got {_WORDS.get(got, got)} instead.",
        code="invalid_type",
        param=place,
    )
