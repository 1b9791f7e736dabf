"""Tools on the wire: what a caller may declare, choose and return, in the words of all APIs."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from inference.engines.base import Message, ToolCall
from inference.gateway.parsing.scan import MOST_DEPTH, JsonScan
from inference.gateway.wire.checks import bounded, invalid, missing, unsupported
from inference.gateway.wire.common import CallRule, HeldTool
from inference.gateway.wire.diagnose import shown
from inference.gateway.wire.schema import ABSENT
from inference.gateway.wire.tool_schema import Function, PastCall, Tool
from inference.payloads import Extras
from portal.core.errors import Invalid

MOST_TOOLS: Final = 128
MOST_BYTES: Final = 256 * 1024
_ID_CHARS: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A choice that says more than a tool's name is none of ours.
_CHOICE_BYTES: Final = 256


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether tools may be called, or must be; ``name`` is the one that must."""

    kind: Literal["auto", "none", "required"] = "auto"
    name: str = ""


AUTO: Final = ToolChoice()


class Chosen(msgspec.Struct, frozen=True):
    """What a request wants of tools; see ``ParsedRequest``."""

    extras: Extras | None = None
    one_call: bool = False
    calls: CallRule | None = None


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
    return chosen(functions, read_choice(choice), parallel)


def chosen(
    functions: Sequence[tuple[str, Function]],
    choice: ToolChoice,
    parallel: bool | None,
    *,
    schema: str = "parameters",
) -> Chosen:
    """What a request wants of tools.

    Args:
        functions: each with its place in the body.
        schema: the member there that holds its parameters.
    """
    if not functions:
        if choice.kind == "required":
            raise invalid("tool_choice", "there are no tools to call")
        return NOTHING
    declared = declaration(functions)
    if choice.kind == "none":
        return NOTHING
    one_call = parallel is False or bool(choice.name)
    return Chosen(Extras(tools=declared), one_call, _rule(functions, choice, schema))


def _rule(
    functions: Sequence[tuple[str, Function]], choice: ToolChoice, schema: str
) -> CallRule | None:
    """What calls are held to: those that are forced, and those of strict tools."""
    forced = choice.kind == "required"
    if not forced and not any(function.strict for _, function in functions):
        return None
    held = tuple(
        HeldTool(
            function.name,
            msgspec.json.encode(_parameters(function)).decode(),
            function.strict is True,
            f"{path}.{schema}",
        )
        for path, function in functions
        if choice.name in ("", function.name)
    )
    if not held:
        raise invalid("tool_choice", f"there is no tool '{shown(choice.name)}'")
    return CallRule(held, forced)


def with_tools(extras: Extras | None, chosen: Chosen) -> Extras | None:
    """What a request asks for, its tools among it.

    Raises:
        Invalid: it asks for a structure too, which leaves the model no way to call a tool.
    """
    tools = chosen.extras
    if extras is None or tools is None:
        return tools or extras
    if extras.min_tokens and chosen.calls is not None:
        raise invalid("min_tokens", "an answer that is held to calls ends where they do")
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
    checked_depth(f"{path}.parameters", function.parameters)
    declared: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        declared["description"] = function.description
    declared["parameters"] = _parameters(function)
    return declared


def _parameters(function: Function) -> dict[str, Any]:
    return function.parameters or {"type": "object", "properties": {}}


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


def read_choice(choice: msgspec.Raw) -> ToolChoice:
    """``tool_choice`` in the words of OpenAI's APIs.

    Raises:
        Invalid: it is none that is known, or names nothing.
        msgspec.MsgspecError: it is not JSON.
    """
    if choice is ABSENT:
        return AUTO
    if len(memoryview(choice)) > _CHOICE_BYTES:
        raise unsupported("tool_choice", "A choice of some of the tools")
    value = msgspec.json.decode(choice)
    if value is None or value in ("auto", "none", "required"):
        return ToolChoice(value or "auto")
    if isinstance(value, dict):
        return ToolChoice("required", _chosen_name(value))
    raise invalid("tool_choice", "use 'auto', 'none', 'required' or a function's name")


def _chosen_name(choice: dict[str, Any]) -> str:
    """The function that is named: chat completions have its name one level deeper."""
    if choice.get("type") != "function":
        raise unsupported("tool_choice.type", f"Choice '{shown(str(choice.get('type')))}'")
    inner = choice.get("function", choice)
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str) or not name:
        raise missing("tool_choice.name" if inner is choice else "tool_choice.function.name")
    return name


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
