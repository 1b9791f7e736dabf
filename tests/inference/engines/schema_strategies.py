"""Schemas of the keywords that answers are held to, small enough to be answered."""

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from hypothesis import strategies as st

_names = st.sampled_from(
    ["a", "b", "naïve", "with space", "x-y_z.0", "type", "$ref", "{}|", "'", "日本🙂"]
)
_values = st.sampled_from(
    ["x", "", "é", "a|b", "('c')*", "[^d]", "日本🙂", 1, -7, None, True, 1.5, 0.1]
)


@st.composite
def _strings(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(0, 2))
    return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 3))}


@st.composite
def _integers(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.integers(-200, 200))
    return {"type": "integer", "minimum": least, "maximum": least + draw(st.integers(0, 200))}


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(_names, inner, min_size=1, max_size=3))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    return {"type": "object", "properties": properties, "required": required}


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    least = draw(st.integers(0, 2))
    most = least + draw(st.integers(0, 1))
    return {"type": "array", "items": draw(inner), "minItems": least, "maxItems": most}


_leaves = (
    _strings()
    | _integers()
    | st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["boolean", "null"]}])
    | st.builds(lambda v: {"enum": v}, st.lists(_values, min_size=1, max_size=3))
    | st.builds(lambda v: {"const": v}, _values)
    | st.just({"$ref": "#/$defs/leaf"})
)


def _wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    options = st.lists(inner, min_size=1, max_size=2)
    return _objects(inner) | _arrays(inner) | st.builds(lambda o: {"anyOf": o}, options)


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    """Schemas that every finite answer of a few dozen tokens can meet."""
    inner = st.recursive(_leaves, _wider, max_leaves=4)
    return st.builds(lambda schema, leaf: schema | {"$defs": {"leaf": leaf}}, inner, _integers())


def check_answer(text: str, schema: Any) -> None:
    """Fails unless ``text`` is JSON that meets ``schema``."""
    jsonschema.validate(json.loads(text), schema)


def check_meta(schema: Any) -> None:
    """Fails unless ``schema`` is a JSON schema."""
    jsonschema.Draft202012Validator.check_schema(schema)
