"""JSON schemas that an answer can be held to: what they may say, and how large they may be.

Every engine enforces these keywords, and nothing else of JSON Schema is let through: a keyword
that one engine's compiler ignores would let answers pass that break it, and one that it can't
compile could end the engine for everybody.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from llguidance import LLMatcher

from inference.engines.base import Structure
from inference.engines.integer_ranges import exact_ranges
from portal.core.errors import Invalid

MAX_SCHEMA_BYTES: Final = 32 * 1024
MAX_DEPTH: Final = 16
MAX_PROPERTIES: Final = 500
MAX_ENUM_VALUES: Final = 500
MAX_LENGTH: Final = 4096
MAX_ITEMS: Final = 1024
_MAX_INTEGER: Final = 2**53
_MAX_RANGES: Final = 200
# A caller sends the same schema with each request.
_SCHEMAS_KEPT: Final = 256

ANY_OBJECT: Final = '{"type":"object"}'

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
_PLAIN: Final = "can't have quotes, backslashes or characters that can't be printed"

# What is told to people and changes no answer.
_NOTES: Final = frozenset(
    {"title", "description", "default", "examples", "$schema", "$comment", "deprecated"}
)
_OF_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_VALUES: Final = ("enum", "const")
_ALONE: Final = ("$ref", "anyOf", *_VALUES)
_KEYWORDS: Final = frozenset({"type", *_ALONE}).union(*_OF_TYPE.values())

_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def schema_of(structure: Structure) -> str:
    """The JSON schema that a structure asks for."""
    return structure.schema if structure.kind == "json_schema" else ANY_OBJECT


@lru_cache(maxsize=_SCHEMAS_KEPT)
def checked_schema(text: str, param: str) -> str:
    """The schema as engines get it: without notes, and closed.

    An object with ``properties`` has no others: one engine would else let a second member of the
    same name pass, of any type. What the closed schema allows, the open one does too.

    Args:
        text: the schema as JSON.
        param: the parameter that holds it, for refusals.

    Raises:
        Invalid: it is no schema, too large, or says what is not supported; the message names it.
    """
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise _wrong(param, f"it is larger than {MAX_SCHEMA_BYTES} bytes")
    if "\\u0000" in text:
        raise _wrong(param, "text can't hold NUL characters (\\u0000)")
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        raise _wrong(param, "it is not valid JSON, or nested too deeply") from None
    clean = msgspec.json.encode(_Check(schema, param).run()).decode()
    fault = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(clean))
    if fault:
        raise _wrong(param, " ".join(fault.split())[:200])
    return clean


class _Check:
    """Looks one schema over, and writes it anew."""

    def __init__(self, root: Any, param: str) -> None:
        self._root = root
        self._param = param
        self._names: frozenset[str] = frozenset()
        self._properties = 0

    def run(self) -> dict[str, Any]:
        root = dict(self._object(self._root, ""))
        definitions = self._object(root.pop("$defs", {}), "/$defs")
        self._names = frozenset(definitions)
        if not all(map(_NAME.fullmatch, self._names)):
            raise self._refusal("/$defs", "names have letters, digits, '_', '.' and '-' alone")
        defined = {n: self._schema(s, f"/$defs/{n}", 1) for n, s in definitions.items()}
        clean = self._schema(root, "", 0)
        if defined:
            clean["$defs"] = defined
        for schema in (clean, *defined.values()):
            self._ends(schema, clean, frozenset())
        return clean

    def _schema(self, value: Any, path: str, depth: int) -> dict[str, Any]:
        schema = {k: v for k, v in self._object(value, path).items() if k not in _NOTES}
        if depth > MAX_DEPTH:
            raise self._refusal(path, f"it is nested more than {MAX_DEPTH} levels deep")
        for keyword in schema:
            if keyword not in _KEYWORDS:
                raise self._refusal(path, f"the keyword '{keyword[:64]}' is not supported")
        alone = next((keyword for keyword in _ALONE if keyword in schema), None)
        if alone is None:
            return self._typed(schema, path, depth)
        others = schema.keys() - {alone} - ({"type"} if alone in _VALUES else set())
        if others:
            raise self._refusal(path, f"'{alone}' can't stand beside '{min(others)}'")
        if alone == "$ref":
            self._reference(schema["$ref"], path)
        elif alone == "anyOf":
            options = enumerate(self._list(schema, "anyOf", path))
            return {"anyOf": [self._schema(o, f"{path}/anyOf/{n}", depth + 1) for n, o in options]}
        else:
            self._values(schema, alone, path)
        return {alone: schema[alone]}

    def _reference(self, target: Any, path: str) -> None:
        if target == "#":
            return
        name = target.removeprefix("#/$defs/") if isinstance(target, str) else ""
        if name == target or name not in self._names:
            raise self._refusal(path, "'$ref' must be '#' or name a schema of '$defs'")

    def _values(self, schema: dict[str, Any], keyword: str, path: str) -> None:
        if keyword == "const":
            values = [schema["const"]]
        else:
            values = self._list(schema, "enum", path)
            if len(values) > MAX_ENUM_VALUES:
                raise self._refusal(path, f"'enum' has more than {MAX_ENUM_VALUES} values")
        for value in values:
            if not _is_scalar(value):
                raise self._refusal(
                    path, f"'{keyword}' takes null, booleans, numbers and texts, which {_PLAIN}"
                )
        types = self._types(schema, path)
        if types and not all(any(_IS[name](value) for name in types) for value in values):
            raise self._refusal(path, f"a value of '{keyword}' is not of its 'type'")

    def _typed(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        types = self._types(schema, path)
        for name, keywords in _OF_TYPE.items():
            used = sorted(keywords & schema.keys())
            # Bounds of an integer would bind other numbers too, which no engine can be held to.
            if used and (name not in types or (name == "integer" and "number" in types)):
                raise self._refusal(path, f"'{used[0]}' needs the type '{name}'")
        self._bounds(schema, path, "minLength", "maxLength", 0, MAX_LENGTH)
        self._bounds(schema, path, "minItems", "maxItems", 0, MAX_ITEMS)
        self._bounds(schema, path, "minimum", "maximum", -_MAX_INTEGER, _MAX_INTEGER)
        if "items" in schema:
            schema["items"] = self._schema(schema["items"], f"{path}/items", depth + 1)
        if "object" in types:
            self._members(schema, path, depth)
        return self._ranged(schema, types, path)

    def _ranged(self, schema: dict[str, Any], types: list[str], path: str) -> dict[str, Any]:
        """The schema with bounds of integers that every engine gets right."""
        bounds = schema.get("minimum"), schema.get("maximum")
        ranges = exact_ranges(*bounds, most=_MAX_RANGES)
        if ranges is None:
            raise self._refusal(
                path,
                "'minimum' and 'maximum' are too far apart to begin alike: choose ends whose "
                "first digits differ",
            )
        if ranges == [bounds]:
            return schema
        rest = {k: v for k, v in schema.items() if k not in _OF_TYPE["integer"]}
        rest["type"] = [name for name in types if name != "integer"]
        options: list[dict[str, Any]] = [_range(*each) for each in ranges]
        return {"anyOf": options + ([rest] if rest["type"] else [])}

    def _members(self, schema: dict[str, Any], path: str, depth: int) -> None:
        properties = self._object(schema.get("properties", {}), f"{path}/properties")
        self._properties += len(properties)
        if self._properties > MAX_PROPERTIES:
            raise self._refusal(path, f"it has more than {MAX_PROPERTIES} properties")
        if not all(map(_is_plain, properties)):
            raise self._refusal(path, f"the names of 'properties' {_PLAIN}")
        clean = {
            name: self._schema(member, f"{path}/properties/{name}", depth + 1)
            for name, member in properties.items()
        }
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(
            isinstance(name, str) and name in properties for name in required
        ):
            raise self._refusal(path, "'required' must list names of 'properties'")
        if not isinstance(schema.get("additionalProperties", True), bool):
            raise self._refusal(path, "'additionalProperties' must be true or false")
        if clean:
            schema |= {"properties": clean, "additionalProperties": False}

    def _types(self, schema: dict[str, Any], path: str) -> list[str]:
        told = schema.get("type", [])
        types = [told] if isinstance(told, str) else told
        known = isinstance(types, list) and all(
            isinstance(name, str) and name in _OF_TYPE for name in types
        )
        if not known or (not types and "type" in schema):
            raise self._refusal(path, f"'type' must be one or more of {', '.join(_OF_TYPE)}")
        return list(types)

    def _bounds(
        self, schema: dict[str, Any], path: str, low: str, high: str, least: int, most: int
    ) -> None:
        bounds = [schema[name] for name in (low, high) if name in schema]
        if not all(_IS["integer"](value) and least <= value <= most for value in bounds):
            raise self._refusal(path, f"'{low}' and '{high}' must be integers of {least}..{most}")
        if bounds != sorted(bounds):
            raise self._refusal(path, f"'{low}' is above '{high}'")

    def _ends(self, schema: dict[str, Any], root: dict[str, Any], seen: frozenset[str]) -> None:
        """Refuses references that lead back to themselves before any text stands between."""
        target = schema.get("$ref")
        if target is not None:
            if target in seen:
                raise self._refusal("", f"the reference '{target[:64]}' leads to itself")
            found = root if target == "#" else root["$defs"][target.removeprefix("#/$defs/")]
            self._ends(found, root, seen | {target})
        for option in schema.get("anyOf", ()):
            self._ends(option, root, seen)

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._refusal(path, "a JSON object is needed")
        return value

    def _list(self, schema: dict[str, Any], keyword: str, path: str) -> list[Any]:
        values = schema[keyword]
        if not isinstance(values, list) or not values:
            raise self._refusal(path, f"'{keyword}' must be a list that is not empty")
        return values

    def _refusal(self, path: str, reason: str) -> Invalid:
        return _wrong(self._param, f"at '#{path[:128]}' {reason}" if path else reason)


def _range(least: int | None, greatest: int | None) -> dict[str, Any]:
    bounds = {"minimum": least, "maximum": greatest}
    return {"type": "integer"} | {k: v for k, v in bounds.items() if v is not None}


def _is_plain(text: str) -> bool:
    """Whether no compiler of grammars takes a part of it for a part of the grammar.

    OpenVINO's writes texts into a grammar of its own, and does not escape all that it should.
    """
    return text.isprintable() and '"' not in text and "\\" not in text


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return _is_plain(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) <= _MAX_INTEGER)


def _wrong(param: str, reason: str) -> Invalid:
    # A reason may quote what stands in the schema.
    told = "".join(char if char.isprintable() else "?" for char in reason)
    return Invalid(
        f"Invalid '{param}': {told}. docs/api.md lists what a schema may say.",
        code="invalid_json_schema",
        param=param,
    )
