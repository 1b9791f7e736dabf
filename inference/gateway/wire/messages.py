"""The dialect of ``/v1/messages``: Anthropic's API."""

from typing import ClassVar, Final

import msgspec

from inference.engines.base import Message
from inference.gateway.wire import checks
from inference.gateway.wire.checks import DEFAULT_LIMITS, RequestLimits, invalid, unsupported
from inference.gateway.wire.common import Ending, Opening, ParsedRequest
from inference.gateway.wire.diagnose import shown
from inference.gateway.wire.extras import extras_of
from inference.gateway.wire.items import Texts
from inference.gateway.wire.message_events import MessageEncoder, whole_message
from inference.gateway.wire.message_style import ANTHROPIC
from inference.gateway.wire.schema import ABSENT, Unsupported
from inference.gateway.wire.style import Style


class Block(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One element of a content; ``cache_control`` changes what is paid, never what is said."""

    type: str
    text: str | None = None
    cache_control: msgspec.Raw = ABSENT
    citations: msgspec.Raw = ABSENT


class IncomingTurn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One message of the conversation."""

    role: str
    content: str | list[Block] | None = None


class Metadata(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_id: str | None = None


class IncomingCount(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The body of ``POST /v1/messages/count_tokens``."""

    model: str
    messages: list[IncomingTurn]
    system: str | list[Block] | None = None
    cache_control: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    mcp_servers: msgspec.Raw = ABSENT
    output_config: msgspec.Raw = ABSENT
    output_format: msgspec.Raw = ABSENT
    speed: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
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
    "tools": ([],),
    "tool_choice": ({"type": "none"}, {"type": "auto"}),
    "thinking": ({"type": "disabled"},),
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

_texts: Final = Texts(frozenset({"text"}), Unsupported({"citations": ([],)}))

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
            extras=None if incoming.top_k is None else extras_of(top_k=incoming.top_k),
        )

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        return whole_message(opening, text, ending)

    def stream(self, opening: Opening) -> MessageEncoder:
        return MessageEncoder(opening)


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
        text = _texts.of(f"messages[{index}].content", turn.content)
        messages.append(Message(turn.role, text))
    if messages[-1].role == "assistant":
        # The model's template would close this turn and open another: not what is asked for.
        place = f"messages[{len(incoming.messages) - 1}].role"
        raise unsupported(place, "A last message of the assistant, to be continued,")
    return tuple(messages)
