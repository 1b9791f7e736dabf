"""Every form in which models write calls, held to two tools."""

import json
from typing import Any, Final

from inference.engines.base import Calls
from inference.gateway.parsing.forms import form_of, held_calls
from inference.gateway.parsing.reading import Reading, read_whole
from inference.markers import DEEPSEEK_SEPARATOR, MISTRAL_ARGUMENTS
from tests.inference.engines.schema_strategies import check_answer

SCHEMAS: Final[dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "warm": {"type": "boolean"}},
        "required": ["city", "warm"],
        "additionalProperties": False,
    },
    "get_time": {"type": "object", "properties": {}, "additionalProperties": False},
}
FORMS: Final = {
    "hermes": form_of("hermes", ""),
    "llama": form_of("llama", ""),
    "mistral": form_of("mistral", ""),
    "mistral, marked": form_of("mistral", MISTRAL_ARGUMENTS),
    "deepseek": form_of("deepseek", f"function{DEEPSEEK_SEPARATOR}"),
    "deepseek v3.1": form_of("deepseek", ""),
}


def held(form: str, *, forced: bool, one: bool = False) -> Calls:
    """What an answer in that form is held to."""
    tools = [(name, json.dumps(schema)) for name, schema in SCHEMAS.items()]
    return held_calls(FORMS[form], tools, forced=forced, one=one)


def check_calls(form: str, text: str) -> int:
    """How many calls an answer has; each is of one of the tools, and within its schema."""
    answer = read_whole(Reading(form.split(",")[0].split(" ")[0]), "job", text)
    assert not answer.text.strip(), answer
    for call in answer.calls:
        check_answer(call.arguments, SCHEMAS[call.name])
    return len(answer.calls)
