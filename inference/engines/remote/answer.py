"""A server's chunks of text become counted events.

Servers stream text and count at the end. A chunk's tokens are the server's own count where it
gives one; else a lower bound is told while the text streams (a chunk is a token at least, and the
text has about as many tokens as its own encoding), and the rest with the end. So the events never
sum up to more than what the server counts, and a cut stream is charged for the text it showed.
"""

from collections import deque
from dataclasses import dataclass

from tokenizers import Tokenizer

from inference.engines.base import (
    Done,
    Event,
    GenerationRequest,
    StopReason,
    Token,
    TokenLogprob,
)
from inference.engines.text import Piece, StopFilter

_WINDOW_CHARS = 256
_KEPT_CHARS = 64


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a server sent at once.

    Args:
        text: new text.
        tokens: how many tokens it covers, where the server says so.
        total: all completion tokens so far, where the server says so.
        logprobs: one entry for each of its tokens, where asked for.
        reason: why the answer ended; None while it goes on.
        ended: the answer ended, and the server doesn't say why.
        stop: the stop string that ended it, where the server says so.
        prompt_tokens, completion_tokens: the server's final usage.
    """

    text: str = ""
    tokens: int | None = None
    total: int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    reason: StopReason | None = None
    ended: bool = False
    stop: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class TextCounter:
    """Counts the tokens of a growing text, encoding only its end anew."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._settled = 0
        self._open = ""

    def push(self, text: str) -> int:
        """Add text; returns the tokens of all text so far."""
        self._open += text
        count = self._count(self._open)
        if len(self._open) > _WINDOW_CHARS:
            # Before white space a token begins; without any the count is off by one at most.
            cut = self._open.rfind(" ", 1, -_KEPT_CHARS)
            cut = cut if cut > 0 else len(self._open) - _KEPT_CHARS
            self._settled += self._count(self._open[:cut])
            self._open = self._open[cut:]
            count = self._count(self._open)
        return self._settled + count

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


class Answer:
    """One request's answer so far."""

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer) -> None:
        self._request = request
        self._most = request.sampling.max_tokens
        self._filter = StopFilter(request.sampling.stop)
        self._counter = TextCounter(tokenizer)
        self._chunks = 0
        self._encoded = 0  # tokens of the text by our own count
        self._exact = False
        self._counted = 0
        self._logprobs: deque[TokenLogprob] = deque()
        self._prompt_tokens = len(request.prompt_ids)
        self._usage: int | None = None
        self._stop = -1
        self.told = 0
        self.reason: StopReason | None = None
        self.cut = False

    @property
    def started(self) -> bool:
        """Whether the server has generated anything."""
        return self._chunks > 0 or self._counted > 0

    def take(self, chunk: Chunk) -> list[Event]:
        """The events of a chunk. Afterwards ``cut`` says that nothing more is to be read."""
        self._logprobs.extend(chunk.logprobs)
        self._note_end(chunk)
        if not chunk.text and not chunk.tokens and not chunk.total:
            return []
        new = self._new_tokens(chunk)
        if self._counted + new > self._most:
            # The server goes on beyond what it was asked for.
            new = self._most - self._counted
            self._end("length")
        self._counted += new
        piece = self._filter.push(chunk.text, new)
        if piece.stopped:
            self._stop = piece.stop
            self._end("stop")
        return self._tell(piece)

    def rest(self) -> list[Event]:
        """What was held back, and the tokens that nothing was told of yet."""
        if self._usage is not None and not self.cut:
            total = self._usage
        elif self._exact:
            total = self._counted
        else:
            total = max(self._counted, self._encoded)
        missing = max(0, min(total, self._most) - self._counted)
        self._counted += missing
        held = self._filter.push("", missing)
        left = self._filter.finish()
        return self._tell(Piece(held.text + left.text, held.tokens + left.tokens))

    def done(self, reason: StopReason) -> Done:
        """The terminal event, after ``rest``."""
        stop = self._stop if reason == "stop" else -1
        return Done(self._request.id, reason, self._prompt_tokens, self.told, stop)

    def _end(self, reason: StopReason) -> None:
        self.reason = reason
        self.cut = True

    def _note_end(self, chunk: Chunk) -> None:
        self.reason = self.reason or chunk.reason
        if chunk.ended and self.reason is None:
            full = max(self._counted, self._encoded) >= self._most
            self.reason = "length" if full else "stop"
        stops = self._request.sampling.stop
        if chunk.stop is not None and chunk.stop in stops:
            self._stop = stops.index(chunk.stop)
        if chunk.completion_tokens is not None:
            self._usage = max(0, chunk.completion_tokens)
        if chunk.prompt_tokens:
            self._prompt_tokens = chunk.prompt_tokens

    def _new_tokens(self, chunk: Chunk) -> int:
        if chunk.tokens is not None:
            self._exact = True
            return max(0, chunk.tokens)
        if chunk.total is not None:
            self._exact = True
            return max(0, chunk.total - self._counted)
        self._chunks += 1
        self._encoded = self._counter.push(chunk.text)
        return max(0, min(self._chunks, self._encoded) - self._counted)

    def _tell(self, piece: Piece) -> list[Event]:
        if not piece.text and not piece.tokens:
            return []
        self.told += piece.tokens
        told = min(piece.tokens, len(self._logprobs))
        logprobs = tuple(self._logprobs.popleft() for _ in range(told))
        return [Token(self._request.id, piece.text, piece.tokens, logprobs)]
