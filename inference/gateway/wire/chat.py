"""The dialect of ``/v1/chat/completions``."""

from typing import ClassVar

from inference.choices import decode_choices
from inference.gateway.wire.choices import (
    ChoicesEncoder,
    chat_choice,
    chat_delta,
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
        extras = opening.request.extras
        if extras is not None and extras.detailed:
            start = chat_opening(opening, stream=False)
            return whole_choices(start, chat_choice, decode_choices(text, extras.n), ending.usage)
        return read_completion(
            completion_id=f"chatcmpl-{opening.job}",
            created=opening.created,
            model=opening.request.model,
            text=text,
            ending=ending,
        )

    def stream(self, opening: Opening) -> StreamEncoder:
        extras = opening.request.extras
        if extras is not None and extras.detailed:
            start = chat_opening(opening, stream=True)
            return ChoicesEncoder(start, chat_delta, opening, opens=True)
        return self.read_stream(opening)

    def read_stream(self, opening: Opening) -> ReadChunkEncoder:
        return ReadChunkEncoder(
            completion_id=f"chatcmpl-{opening.job}",
            created=opening.created,
            model=opening.request.model,
            include_usage=opening.request.include_usage,
        )
