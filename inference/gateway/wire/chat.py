"""The dialect of ``/v1/chat/completions``."""

from typing import ClassVar

from inference.gateway.wire.common import Ending, Opening, ParsedRequest
from inference.gateway.wire.reading import ReadChunkEncoder, read_completion
from inference.gateway.wire.request import parse_chat_request
from inference.gateway.wire.style import OPENAI, Style


class ChatDialect:
    """OpenAI's chat completions."""

    style: ClassVar[Style] = OPENAI

    def parse(self, body: bytes) -> ParsedRequest:
        return parse_chat_request(body)

    def whole(self, opening: Opening, text: str, ending: Ending) -> bytes:
        return read_completion(
            completion_id=f"chatcmpl-{opening.job}",
            created=opening.created,
            model=opening.request.model,
            text=text,
            ending=ending,
        )

    def stream(self, opening: Opening) -> ReadChunkEncoder:
        return self.read_stream(opening)

    def read_stream(self, opening: Opening) -> ReadChunkEncoder:
        return ReadChunkEncoder(
            completion_id=f"chatcmpl-{opening.job}",
            created=opening.created,
            model=opening.request.model,
            include_usage=opening.request.include_usage,
        )
