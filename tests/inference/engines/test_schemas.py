"""Which schemas answers can be held to, and how the others are refused."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engines.base import Structure
from inference.engines.schemas import MAX_DEPTH, MAX_PROPERTIES, checked_schema, schema_of
from portal.core.errors import Invalid
from tests.inference.engines.schema_strategies import check_meta, schemas

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "in full"},
        "age": {"type": "integer"},
    },
    "required": ["name"],
}


def checked(schema: Any) -> Any:
    return json.loads(checked_schema(json.dumps(schema), "response_format"))


def refusal(schema: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        checked(schema)
    assert (caught.value.error_code, caught.value.param) == (
        "invalid_json_schema",
        "response_format",
    )
    return caught.value


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def test_check_closes_objects_and_drops_notes() -> None:
    assert checked(PERSON) == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name"],
        "additionalProperties": False,
    }


def test_check_leaves_an_object_without_properties_open() -> None:
    assert checked({"type": "object"}) == {"type": "object"}
    assert schema_of(Structure("json_object")) == '{"type":"object"}'


def test_check_takes_a_property_named_like_a_keyword() -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string"}, "not": {}}}
    assert set(checked(schema)["properties"]) == {"title", "not"}


def test_check_takes_a_schema_that_holds_itself() -> None:
    tree = {"type": "object", "properties": {"left": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    assert checked(tree)["properties"] == tree["properties"]


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "pattern": "a"}, "'pattern'"),
        ({"type": "string", "format": "date"}, "'format'"),
        ({"allOf": [PERSON]}, "'allOf'"),
        ({"oneOf": [PERSON]}, "'oneOf'"),
        ({"not": {}}, "'not'"),
        ({"un\nprintable": {}}, "'un?printable'"),
        ({"x-guidance": {"lenient": True}}, "'x-guidance'"),
        ({"type": "array", "items": {"if": {}}}, "#/items"),
        ({"type": "number", "minimum": 1}, "'integer'"),
        ({"type": ["integer", "number"], "minimum": 1}, "'integer'"),
        ({"minLength": 1}, "'string'"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "above"),
        ({"type": "string", "maxLength": 10**6}, "'maxLength'"),
        ({"type": "array", "minItems": True}, "'minItems'"),
        ({"type": "integer", "maximum": 1.5}, "'maximum'"),
        ({"type": "nonsense"}, "'type'"),
        ({"type": []}, "'type'"),
        ({"type": [["string"]]}, "'type'"),
        ({"enum": []}, "'enum'"),
        ({"type": "string", "enum": [1]}, "'enum'"),
        ({"type": "integer", "const": True}, "'const'"),
        ({"anyOf": []}, "'anyOf'"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "beside 'type'"),
        ({"$ref": "#/$defs/none"}, "'$ref'"),
        ({"$ref": "https://example.com/schema"}, "'$ref'"),
        ({"$ref": 7}, "'$ref'"),
        ({"$defs": {"a/b": {}}}, "#/$defs"),
        ({"$ref": "#"}, "leads to itself"),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "leads to itself"),
        ({"type": "object", "required": ["a"]}, "'required'"),
        ({"type": "object", "required": "a"}, "'required'"),
        ({"type": "object", "additionalProperties": {"type": "null"}}, "'additionalProperties'"),
        ({"type": "object", "properties": []}, "#/properties"),
        ({"type": "object", "properties": {"a": True}}, "#/properties/a"),
        ([], "object"),
        (True, "object"),
        (nested(MAX_DEPTH + 1), "deep"),
        ({"enum": [str(n) for n in range(600)]}, "'enum'"),
        ({"type": "object", "properties": {f"{n}": {} for n in range(MAX_PROPERTIES + 1)}}, "more"),
        ({"const": "x" * 40_000}, "larger"),
        ({"const": "a\0b"}, "NUL"),
        ({"const": "two\nlines"}, "'const'"),
        ({"const": 'a "quoted" word'}, "quotes"),
        ({"enum": ["back\\slash"]}, "backslashes"),
        ({"type": "object", "properties": {'a "quoted" name': {}}}, "quotes"),
        ({"enum": [{"a": 1}]}, "'enum'"),
        ({"enum": [2**60]}, "'enum'"),
        ({"type": "object", "properties": {"two\nlines": {}}}, "printed"),
    ],
)
def test_refuse_what_no_answer_can_be_held_to_names_it(schema: Any, named: str) -> None:
    assert named in refusal(schema).message


def test_check_takes_the_deepest_schema_allowed() -> None:
    assert checked(nested(MAX_DEPTH)) == nested(MAX_DEPTH)


@given(schemas())
@settings(max_examples=60, deadline=None)
def test_check_any_schema_of_the_keywords_keeps_it_valid_and_narrower(schema: Any) -> None:
    clean = checked(schema)
    check_meta(clean)
    assert checked(clean) == clean


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "properties",
                        "$ref",
                        "$defs",
                        "anyOf",
                        "enum",
                        "items",
                        "required",
                        "minLength",
                        "#",
                        "string",
                    ]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_check_any_json_is_taken_or_refused(value: Any) -> None:
    with contextlib.suppress(Invalid):
        assert isinstance(checked(value), dict)
