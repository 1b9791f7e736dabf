"""From token ids to text that can be shown: bytes, UTF-8, stop strings, token counts."""

import codecs
import copy
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from inference.artefacts.vocabulary import read_vocabulary
from inference.engines.base import TokenLogprob
from inference.markers import REASONING_MARKS, TOOL_MARKS


class TokenBytes:
    """The bytes of each token of a vocabulary; special tokens have none.

    But for the marks around reasoning, which is always told from the answer by them; and, for a
    request with tools, those around calls (`for_tools`).

    Raises:
        Invalid: the vocabulary is neither byte-level nor SentencePiece's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary = read_vocabulary(tokenizer)
        self._bytes = vocabulary.token_bytes
        self.drops_leading_space = vocabulary.drops_leading_space
        added = tokenizer.get_added_tokens_decoder().items()
        special = {token_id: token.content for token_id, token in added if token.special}
        self._bytes |= {i: text.encode() for i, text in special.items() if text in REASONING_MARKS}
        self._tool_marks = {i: text.encode() for i, text in special.items() if text in TOOL_MARKS}
        self._for_tools: TokenBytes | None = None

    def for_tools(self, tools: str) -> "TokenBytes":
        """The table for a request with these ``tools``; the marks of calls have bytes then."""
        if not tools or not self._tool_marks:
            return self
        if self._for_tools is None:
            shown = copy.copy(self)
            shown._bytes = self._bytes | self._tool_marks
            self._for_tools = shown
        return self._for_tools

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, token_id: int) -> bytes:
        return self._bytes.get(token_id, b"")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that may be shown now, and the tokens that it newly covers.

    ``stop`` is the place of the stop string that was met, or -1.
    """

    text: str
    tokens: int
    stop: int = -1

    @property
    def stopped(self) -> bool:
        return self.stop >= 0


def taken(logprobs: list[TokenLogprob], tokens: int) -> tuple[TokenLogprob, ...]:
    """The entries of the next ``tokens`` tokens, taken off the list of those not told yet."""
    if not logprobs:
        return ()
    told = tuple(logprobs[:tokens])
    del logprobs[:tokens]
    return told


class StopFilter:
    """Passes text on, up to and not including the first stop string.

    The longest end of the text that could still become a stop string is held back. Tokens are
    counted with the text that contains their last character.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self._position = 0  # of the start of _held in the whole text
        self._ends: deque[tuple[int, int]] = deque()  # (end position, tokens)
        self._uncounted = 0

    def push(self, text: str, tokens: int) -> Piece:
        """Add ``text``, covered by ``tokens``; returns what may be shown."""
        held = self._held + text
        self._ends.append((self._position + len(held), tokens))
        self._uncounted += tokens
        found = self._earliest_stop(held)
        if found is not None:
            cut, stop = found
            self._held = ""
            return self._all_tokens(held[:cut], stop)
        keep = self._possible_stop(held)
        shown = held[: len(held) - keep]
        self._held = held[len(shown) :]
        self._position += len(shown)
        # Text-less tokens wait for text.
        return Piece(shown, self._count_shown()) if shown else Piece("", 0)

    def finish(self) -> Piece:
        """What was held back, and every token not yet counted."""
        held, self._held = self._held, ""
        return self._all_tokens(held, -1)

    def _all_tokens(self, text: str, stop: int) -> Piece:
        tokens, self._uncounted = self._uncounted, 0
        self._ends.clear()
        return Piece(text, tokens, stop)

    def _earliest_stop(self, held: str) -> tuple[int, int] | None:
        """Where in the text the first stop string begins, and which it is."""
        found = [(held.find(stop), place) for place, stop in enumerate(self._stop)]
        return min((pair for pair in found if pair[0] >= 0), default=None)

    def _possible_stop(self, held: str) -> int:
        for size in range(max(map(len, self._stop), default=1) - 1, 0, -1):
            if size <= len(held) and any(
                len(stop) > size and held.endswith(stop[:size]) for stop in self._stop
            ):
                return size
        return 0

    def _count_shown(self) -> int:
        count = 0
        while self._ends and self._ends[0][0] <= self._position:
            count += self._ends.popleft()[1]
        self._uncounted -= count
        return count


class Detokenizer:
    """Turns one request's token ids into text as they come, in constant time a token.

    A UTF-8 sequence is shown once it is complete; bytes that are no UTF-8 become U+FFFD. Where the
    vocabulary puts a space before each text, the first one is not shown, as in the vocabulary's own
    decoder, unless the tokens continue a text that has begun (``continues``).
    """

    def __init__(
        self, table: TokenBytes, stop: Sequence[str] = (), *, continues: bool = False
    ) -> None:
        self._table = table
        self._drop_space = table.drops_leading_space and not continues
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._filter = StopFilter(stop)
        self._unfinished = 0  # tokens whose last character is incomplete

    def push(self, token_ids: Iterable[int]) -> Piece:
        """Add tokens; text after a stop string is dropped, tokens after it are not taken."""
        shown: list[str] = []
        counted = 0
        for token_id in token_ids:
            text = self._utf8.decode(self._table[token_id])
            if self._drop_space and text:
                self._drop_space = False
                text = text.removeprefix(" ")
            self._unfinished += 1
            tokens = 0 if self._utf8.getstate()[0] else self._unfinished
            self._unfinished -= tokens
            piece = self._filter.push(text, tokens)
            shown.append(piece.text)
            counted += piece.tokens
            if piece.stopped:
                counted += self._unfinished
                self._unfinished = 0
                return Piece("".join(shown), counted, piece.stop)
        return Piece("".join(shown), counted)

    def finish(self) -> Piece:
        """The rest: held text, an unfinished sequence as U+FFFD, all tokens not yet counted."""
        tail = self._filter.push(self._utf8.decode(b"", final=True), self._unfinished)
        self._unfinished = 0
        if tail.stopped:
            return tail
        rest = self._filter.finish()
        return Piece(tail.text + rest.text, tail.tokens + rest.tokens)
