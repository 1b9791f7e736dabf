"""The dialect of ``/v1/messages``: Anthropic's API."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import msgspec

from inference.engines.base import Message, ToolCall
from inference.gateway.wire import checks, tools
from inference.gateway.wire.checks import (
    DEFAULT_LIMITS,
    RequestLimits,
    invalid,
    missing,
    unsupported,
)
from inference.gateway.wire.common import Ending, Opening, ParsedRequest
from inference.gateway.wire.diagnose import shown
from inference.gateway.wire.extras import extras_of
from inference.gateway.wire.items import Texts
from inference.gateway.wire.message_events import MessageEncoder
from inference.gateway.wire.message_reading import ReadMessageEncoder, whole_read_message
from inference.gateway.wire.message_style import ANTHROPIC
from inference.gateway.wire.schema import ABSENT, Unsupported
from inference.gateway.wire.style import Style
from inference.gateway.wire.tool_schema import Function


class ResultBlock(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One element of a tool's result, or of the system's text."""

    type: str
    text: str | None = None
    cache_control: msgspec.Raw = ABSENT
    citations: msgspec.Raw = ABSENT


class Block(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One element of a content; ``cache_control`` changes what is paid, never what is said."""

    type: str
    text: str | None = None
    cache_control: msgspec.Raw = ABSENT
    citations: msgspec.Raw = ABSENT
    # Of thinking, which is dropped.
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    # Of a call and of its result.
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    caller: msgspec.Raw = ABSENT
    tool_use_id: str | None = None
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None
    toolset_name: msgspec.Raw = ABSENT


class MessagesTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A tool; what Anthropic runs itself has a type of its own."""

    name: str
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None
    cache_control: msgspec.Raw = ABSENT
    eager_input_streaming: bool | None = None


class IncomingTurn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One message of the conversation."""

    role: str
    content: str | list[Block] | None = None


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Whether the model may call tools."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Whether what the model thinks is shown."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class Metadata(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_id: str | None = None


class IncomingCount(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/messages/count_tokens``."""

    model: str
    messages: list[IncomingTurn]
    system: str | list[ResultBlock] | None = None
    cache_control: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    mcp_servers: msgspec.Raw = ABSENT
    output_config: msgspec.Raw = ABSENT
    output_format: msgspec.Raw = ABSENT
    speed: msgspec.Raw = ABSENT
    thinking: Thinking | None = None
    tool_choice: ToolChoice | None = None
    tools: list[MessagesTool] | None = None
    user_profile_id: msgspec.Raw = ABSENT
    workspace_id: msgspec.Raw = ABSENT


class IncomingMessages(IncomingCount, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/messages``."""

    max_tokens: int
    metadata: Metadata | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    container: msgspec.Raw = ABSENT
    diagnostics: msgspec.Raw = ABSENT
    inference_geo: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    top_k: int | None = None


_OF_BOTH: Final[dict[str, tuple[object, ...]]] = {
    "output_config": ({},),
    "output_format": (),
    "mcp_servers": ([],),
    "context_management": ({},),
    "speed": ("standard",),
    "user_profile_id": (),
    "workspace_id": (),
}
UNSUPPORTED: Final = Unsupported(
    {
        **_OF_BOTH,
        "service_tier": ("auto", "standard_only"),
        "container": (),
        "diagnostics": (),
        "inference_geo": (),
    }
)
UNSUPPORTED_IN_COUNT: Final = Unsupported(_OF_BOTH)

_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
_TOOLED: Final = frozenset({"tool_use", "tool_result", *_THOUGHTS})
_texts: Final = Texts(frozenset({"text"}), Unsupported({"citations": ([],)}), _TOOLED)

_CHOICES: Final = {
    "auto": tools.AUTO,
    "any": tools.ToolChoice("required"),
    "none": tools.ToolChoice("none"),
}
_ROLES: Final = ("user", "assistant", "system")
_decoder: Final = msgspec.json.Decoder(IncomingMessages)
_count_decoder: Final = msgspec.json.Decoder(IncomingCount)


class MessagesDialect:
    """Anthropic's messages."""

    style: ClassVar[Style] = ANTHROPIC

    def parse(self, body: bytes) -> ParsedRequest:
        limits = DEFAULT_LIMITS
        try:
            incoming = _decoder.decode(body)
            checks.refuse_unsupported(UNSUPPORTED, incoming)
            messages = _messages(incoming, limits)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
            raise _texts.refusal(body, fault, limits.depth) from None
        chosen = _chosen(incoming)
        user = None if incoming.metadata is None else incoming.metadata.user_id
        return ParsedRequest(
            model=checks.checked_model(incoming.model, limits),
            messages=messages,
            stream=incoming.stream is True,
            include_usage=True,
            temperature=checks.checked_temperature(incoming.temperature, 1),
            top_p=checks.checked_top_p(incoming.top_p),
            max_tokens=checks.checked_max_tokens("max_tokens", incoming.max_tokens),
            stop=checks.checked_stop(incoming.stop_sequences, limits, "stop_sequences"),
            seed=None,
            user=checks.checked_label("metadata.user_id", user, limits),
            extras=tools.with_tools(extras_of(top_k=incoming.top_k), chosen),
            one_call=chosen.one_call,
            calls=chosen.calls,
            reasoning=_shows_thinking(incoming.thinking),
        )

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        return whole_read_message(opening, text, ending)

    def stream(self, opening: Opening) -> MessageEncoder:
        return MessageEncoder(opening)

    def read_stream(self, opening: Opening) -> ReadMessageEncoder:
        return ReadMessageEncoder(opening)


def parse_count(body: bytes) -> ParsedRequest:
    """The conversation in ``body`` whose tokens are to be counted.

    Raises:
        Invalid: with ``param`` and ``code`` as OpenAI names them.
    """
    limits = DEFAULT_LIMITS
    try:
        incoming = _count_decoder.decode(body)
        checks.refuse_unsupported(UNSUPPORTED_IN_COUNT, incoming)
        messages = _messages(incoming, limits)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise _texts.refusal(body, fault, limits.depth) from None
    return ParsedRequest(
        model=checks.checked_model(incoming.model, limits),
        messages=messages,
        stream=False,
        include_usage=False,
        temperature=None,
        top_p=None,
        max_tokens=None,
        stop=(),
        seed=None,
        user=None,
        extras=_chosen(incoming).extras,
        # Refused here as where it is asked for; what is counted does not depend on it.
        reasoning=_shows_thinking(incoming.thinking),
    )


def _messages(incoming: IncomingCount, limits: RequestLimits) -> tuple[Message, ...]:
    checks.checked_length("messages", incoming.messages, limits)
    messages = []
    if incoming.system:
        messages.append(Message("system", _texts.of("system", incoming.system)))
    for index, turn in enumerate(incoming.messages):
        if turn.role not in _ROLES:
            reason = f"unknown role '{shown(turn.role)}'; use {', '.join(_ROLES)}"
            raise invalid(f"messages[{index}].role", reason)
        path = f"messages[{index}].content"
        if isinstance(turn.content, list) and any(b.type in _TOOLED for b in turn.content):
            messages += _tooled_turn(path, turn.role, turn.content)
        else:
            messages.append(Message(turn.role, _texts.of(path, turn.content)))
    tools.checked_results("messages", messages)
    if messages[-1].role == "assistant":
        # The model's template would close this turn and open another: not what is asked for.
        place = f"messages[{len(incoming.messages) - 1}].role"
        raise unsupported(place, "A last message of the assistant, to be continued,")
    return tuple(messages)


def _tooled_turn(path: str, role: str, blocks: Sequence[Block]) -> list[Message]:
    """A turn with calls or results of tools; each result becomes a message before the text."""
    results: list[Message] = []
    calls: list[ToolCall] = []
    texts: list[str] = []
    for index, block in enumerate(blocks):
        place = f"{path}[{index}]"
        if block.type == "tool_use" and role == "assistant":
            calls.append(_call(place, block))
        elif block.type == "tool_result" and role == "user":
            results.append(_result(place, block))
        elif block.type in _THOUGHTS and role == "assistant":
            continue
        elif block.type in _TOOLED:
            raise invalid(f"{place}.type", f"a message of the {role} has no '{block.type}'")
        else:
            texts.append(_texts.of(place, [block]))
    if not texts and (results or not calls):
        return results or [Message(role, "")]
    return [*results, Message(role, "\n".join(texts), tuple(calls))]


def _call(path: str, block: Block) -> ToolCall:
    if block.name is None:
        raise missing(f"{path}.name")
    arguments = msgspec.json.encode(block.input or {}).decode()
    return tools.past_call(path, block.id or "", block.name, arguments)


def _result(path: str, block: Block) -> Message:
    call_id = tools.checked_id(f"{path}.tool_use_id", block.tool_use_id)
    text = "" if not block.content else _texts.of(f"{path}.content", block.content)
    return Message("tool", text, call_id=call_id)


def _chosen(incoming: IncomingCount) -> tools.Chosen:
    """What a request wants of tools."""
    choice = incoming.tool_choice
    functions = []
    for index, tool in enumerate(incoming.tools or ()):
        path = f"tools[{index}]"
        if tool.type not in (None, "custom"):
            raise unsupported(f"{path}.type", f"Tool '{shown(tool.type or '')}'")
        if tool.input_schema is None:
            raise missing(f"{path}.input_schema")
        function = Function(tool.name, tool.description, tool.input_schema, tool.strict)
        functions.append((path, function))
    parallel = choice is None or not choice.disable_parallel_tool_use
    return tools.chosen(functions, _choice(choice), parallel, schema="input_schema")


def _choice(choice: ToolChoice | None) -> tools.ToolChoice:
    if choice is None:
        return tools.AUTO
    if choice.type == "tool":
        if not choice.name:
            raise missing("tool_choice.name")
        return tools.ToolChoice("required", choice.name)
    if choice.type not in _CHOICES:
        raise invalid("tool_choice.type", "use 'auto', 'any', 'tool' or 'none'")
    return _CHOICES[choice.type]


def _shows_thinking(thinking: Thinking | None) -> bool:
    """Whether the caller asked to see what the model thinks."""
    if thinking is None or thinking.type == "disabled":
        return False
    if thinking.type == "enabled":
        raise unsupported("thinking.type", "Thinking within a budget ('enabled'; send 'adaptive')")
    if thinking.type != "adaptive":
        raise invalid("thinking.type", "use 'adaptive' or 'disabled'")
    if thinking.display not in (None, "summarized", "omitted"):
        raise invalid("thinking.display", "use 'summarized' or 'omitted'")
    if thinking.budget_tokens is not None:
        raise unsupported("thinking.budget_tokens", "A budget of tokens for thinking")
    return thinking.display != "omitted"
