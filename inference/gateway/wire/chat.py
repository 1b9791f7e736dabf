"""The dialect of ``/v1/chat/completions``."""

from typing import ClassVar

from inference.gateway.wire.choices import (
    ChatChoicesEncoder,
    chat_choice,
    chat_opening,
    whole_choices,
)
from inference.gateway.wire.common import Ending, Opening, ParsedRequest, StreamEncoder
from inference.gateway.wire.reading import ReadChunkEncoder, read_completion
from inference.gateway.wire.request import parse_chat_request
from inference.gateway.wire.style import OPENAI, Style


class ChatDialect:
    """OpenAI's chat completions."""

    style: ClassVar[Style] = OPENAI

    def parse(self, body: bytes) -> ParsedRequest:
        return parse_chat_request(body)

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        if opening.request.detailed:
            return whole_choices(chat_opening(opening, stream=False), chat_choice, ending)
        return read_completion(
            completion_id=f"chatcmpl-{opening.job}",
            created=opening.created,
            model=opening.request.model,
            text=text,
            ending=ending,
        )

    def stream(self, opening: Opening) -> StreamEncoder:
        if opening.request.detailed:
            return ChatChoicesEncoder(opening)
        return self.read_stream(opening)

    def read_stream(self, opening: Opening) -> ReadChunkEncoder:
        return ReadChunkEncoder(
            completion_id=f"chatcmpl-{opening.job}",
            created=opening.created,
            model=opening.request.model,
            include_usage=opening.request.include_usage,
        )
