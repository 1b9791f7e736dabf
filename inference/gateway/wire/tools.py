"""Tools on the wire: what a caller may declare, choose and return, in the words of all APIs."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from inference.engines.base import Message, ToolCall
from inference.gateway.parsing.scan import MOST_DEPTH, JsonScan
from inference.gateway.wire.checks import bounded, invalid, missing, unsupported
from inference.gateway.wire.diagnose import shown
from inference.gateway.wire.schema import ABSENT
from inference.gateway.wire.tool_schema import Function, PastCall, Tool
from inference.payloads import Extras
from portal.core.errors import Invalid

MOST_TOOLS: Final = 128
MOST_BYTES: Final = 256 * 1024
_ID_CHARS: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A harmless choice is short; a longer one names a tool, which is refused unread.
_CHOICE_BYTES: Final = 64


class Chosen(msgspec.Struct, frozen=True):
    """What a request wants of tools."""

    extras: Extras | None = None
    one_call: bool = False


NOTHING: Final = Chosen()


def of_chat(tools: Sequence[Tool] | None, choice: msgspec.Raw, parallel: bool | None) -> Chosen:
    """What a chat completion wants of tools.

    Raises:
        Invalid: with ``param`` and ``code`` as OpenAI names them.
        msgspec.MsgspecError: the choice is not JSON.
    """
    if tools is None and choice is ABSENT:
        return NOTHING
    functions = []
    for index, tool in enumerate(tools or ()):
        path = f"tools[{index}]"
        if tool.type != "function":
            raise unsupported(f"{path}.type", f"Tool '{shown(tool.type)}'")
        if tool.function is None:
            raise missing(f"{path}.function")
        functions.append((f"{path}.function", tool.function))
    return chosen(functions, choice, parallel)


def chosen(
    functions: Sequence[tuple[str, Function]], choice: msgspec.Raw, parallel: bool | None
) -> Chosen:
    """What a request wants of tools; each function comes with its place in the body."""
    wanted = _wanted(choice)
    if not functions:
        return NOTHING
    declared = declaration(functions)
    if not wanted:
        return NOTHING
    return Chosen(Extras(tools=declared), one_call=parallel is False)


def with_tools(extras: Extras | None, tools: Extras | None) -> Extras | None:
    """What a request asks for, its tools among it.

    Raises:
        Invalid: it asks for a structure too, which leaves the model no way to call a tool.
    """
    if extras is None or tools is None:
        return tools or extras
    if extras.structure is not None:
        raise Invalid(
            "Tools can't be combined with an answer that has a structure: leave one of them out.",
            code="unsupported_parameter",
            param="tools",
        )
    return replace(extras, tools=tools.tools)


def declaration(functions: Sequence[tuple[str, Function]]) -> str:
    """Functions as OpenAI's JSON array, bounded and checked."""
    if len(functions) > MOST_TOOLS:
        reason = f"expected at most {MOST_TOOLS} tools, but got {len(functions)} instead"
        raise invalid("tools", reason, "array_too_long")
    tools = [{"type": "function", "function": _function(*each)} for each in functions]
    names = [tool["function"]["name"] for tool in tools]  # type: ignore[index]
    if len(set(names)) < len(names):
        raise invalid("tools", "two tools have the same name")
    encoded = msgspec.json.encode(tools)
    if len(encoded) > MOST_BYTES:
        reason = f"expected at most {MOST_BYTES} bytes of JSON in all, but got {len(encoded)}"
        raise invalid("tools", reason, "string_above_max_length")
    if b"\\u0000" in encoded:
        raise invalid("tools", "text can't hold NUL characters (\\u0000)", "invalid_unicode")
    return encoded.decode()


def _function(path: str, function: Function) -> dict[str, Any]:
    checked_name(f"{path}.name", function.name)
    if function.strict:
        # Nothing makes the model keep to the schema, so nobody is promised that it does.
        raise unsupported(f"{path}.strict", "A strict tool")
    checked_depth(f"{path}.parameters", function.parameters)
    declared: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        declared["description"] = function.description
    declared["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return declared


def checked_name(path: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        reason = "expected 1 to 64 letters, digits, underscores and dashes"
        raise invalid(path, f"{reason}, but got '{shown(name)}'")
    return name


def checked_depth(path: str, value: Any) -> None:
    """Refuses what is nested deeper than a body may be."""
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise Invalid(
        f"Invalid '{path}': at most {MOST_DEPTH} levels are allowed.",
        code="body_too_deep",
        param=path,
    )


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _wanted(choice: msgspec.Raw) -> bool:
    """Whether the model may call tools.

    Raises:
        Invalid: it is to be made to, which takes more than asking.
    """
    if choice is ABSENT:
        return True
    value = msgspec.json.decode(choice) if len(memoryview(choice)) <= _CHOICE_BYTES else {}
    if value is None or value in ("auto", "none"):
        return value != "none"
    if isinstance(value, dict) or value == "required":
        raise cannot_force("tool_choice")
    raise invalid("tool_choice", "use 'auto' or 'none'")


def cannot_force(path: str) -> Invalid:
    """400: the model can't be made to call a tool."""
    return Invalid(
        f"Parameter '{path}' is not supported with this value: the model decides whether it calls "
        "a tool and which. Leave it out, or send 'auto' or 'none'.",
        code="unsupported_parameter",
        param=path,
    )


# -- conversations that hold calls -------------------------------------------------------------


def past_calls(path: str, calls: Sequence[PastCall]) -> tuple[ToolCall, ...]:
    """The calls of an assistant's message."""
    found = []
    for index, call in enumerate(calls):
        place = f"{path}[{index}]"
        if call.type != "function":
            raise unsupported(f"{place}.type", f"Tool call '{shown(call.type)}'")
        if call.function is None:
            raise missing(f"{place}.function")
        found.append(past_call(place, call.id, call.function.name, call.function.arguments))
    return tuple(found)


def past_call(path: str, call_id: str, name: str, arguments: str) -> ToolCall:
    """One of them, checked."""
    place = f"{path}.function.arguments"
    # Of a call without arguments some models' callers keep an empty text.
    arguments = arguments.strip() or "{}"
    scan = JsonScan()
    whole = all(not scan.done and scan.feed(char) for char in arguments) and scan.done
    if not whole:
        reason = f"expected a JSON object of at most {MOST_DEPTH} levels as text"
        raise invalid(place, reason, "invalid_json")
    if "\\u0000" in arguments:
        raise invalid(place, "text can't hold NUL characters (\\u0000)", "invalid_unicode")
    return ToolCall(
        checked_id(f"{path}.id", call_id), checked_name(f"{path}.function.name", name), arguments
    )


def checked_id(path: str, call_id: str | None) -> str:
    if not call_id:
        raise missing(path)
    return bounded(path, call_id, _ID_CHARS)


def checked_results(param: str, messages: Iterable[Message]) -> None:
    """Refuses a result of a call that nobody made."""
    made: set[str] = set()
    for message in messages:
        made.update(call.id for call in message.calls)
        if message.call_id and message.call_id not in made:
            raise invalid(param, f"no message before it has the call '{shown(message.call_id)}'")
