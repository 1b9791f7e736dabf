"""Texts of a conversation whose messages hold typed parts, as the newer APIs have them."""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from inference.gateway.wire.checks import invalid, missing, nul, unsupported
from inference.gateway.wire.diagnose import DecodeFault, refusal_of, shown
from inference.gateway.wire.schema import Unsupported
from portal.core.errors import Invalid


class TypedPart(Protocol):
    """One element of a content list."""

    type: str
    text: str | None


class _Part(msgspec.Struct, gc=False):
    type: str = ""


class _Item(msgspec.Struct, gc=False):
    type: str = "message"
    content: str | list[_Part] | None = None


class _Conversation(msgspec.Struct, gc=False):
    input: list[_Item] = []
    messages: list[_Item] = []


_decoder: Final = msgspec.json.Decoder(_Conversation)


class Texts:
    """Reads the texts of one API's messages.

    Args:
        types: parts that are text.
        fields: of these, fields that are known and not served.
        known: parts and items that are no text, and are read elsewhere.
    """

    def __init__(
        self, types: frozenset[str], fields: Unsupported, known: frozenset[str] = frozenset()
    ) -> None:
        self._types = types
        self._known = known | {"message"}
        self._fields = fields

    def of(self, path: str, content: str | Sequence[TypedPart] | None) -> str:
        """The text of a content; parts are joined by newlines.

        Raises:
            Invalid: none, an empty list, a part that is no text.
        """
        text = content if isinstance(content, str) else self._joined(path, content)
        if "\0" in text:
            raise nul(path)
        return text

    def _joined(self, path: str, parts: Sequence[TypedPart] | None) -> str:
        if parts is None:
            raise missing(path)
        if not parts:
            raise invalid(path, "at least one content part is needed", "empty_array")
        return "\n".join(self._text(f"{path}[{i}]", part) for i, part in enumerate(parts))

    def _text(self, path: str, part: TypedPart) -> str:
        if part.type not in self._types:
            raise _unsupported_part(path, part.type)
        field = self._fields.first(part)  # type: ignore[arg-type]
        if field is not None:
            raise unsupported(f"{path}.{field}", f"Content part field '{field}'")
        if part.text is None:
            raise missing(f"{path}.text")
        return part.text

    def refusal(self, body: bytes, fault: DecodeFault, max_depth: int) -> Invalid:
        """The refusal for a ``body`` that the decoder gave up on.

        Items and parts that are not served have fields of their own, so the decoder stumbles over
        these first: the type that they belong to says more.
        """
        refusal = refusal_of(body, fault, max_depth)
        if refusal.error_code != "unknown_parameter":
            return refusal
        try:
            conversation = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return refusal
        found = self._foreign("input", conversation.input)
        return found or self._foreign("messages", conversation.messages) or refusal

    def _foreign(self, name: str, items: Sequence[_Item]) -> Invalid | None:
        for index, item in enumerate(items):
            path = f"{name}[{index}]"
            if item.type not in self._known:
                return unsupported_item(path, item.type)
            if isinstance(item.content, list):
                for at, part in enumerate(item.content):
                    if part.type not in self._types | self._known:
                        return _unsupported_part(f"{path}.content[{at}]", part.type)
        return None


def unsupported_item(path: str, kind: str) -> Invalid:
    return unsupported(f"{path}.type", f"Item '{shown(kind)}'")


def _unsupported_part(path: str, kind: str) -> Invalid:
    return unsupported(f"{path}.type", f"Content part '{shown(kind)}'")
