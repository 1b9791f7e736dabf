"""One request as the engine runs it: its tokens, its text, its end."""

from collections import deque
from collections.abc import Collection

from inference.engines.base import (
    Done,
    Event,
    GenerationRequest,
    Likely,
    StopReason,
    Token,
    TokenLogprob,
)
from inference.engines.text import Detokenizer, Piece, TokenBytes
from inference.engines.torch_batch.sampling import Draws, PlaceLogprobs, TokenMask


class Run:
    """A request between its start and its end.

    Args:
        table: the bytes of each token.
        eos: ends of text.
        mask: restricts its tokens, if anything does.
    """

    __slots__ = (
        "_eos",
        "_logprobs",
        "_table",
        "_text",
        "cached",
        "draws",
        "generated",
        "mask",
        "need",
        "prompt_tokens",
        "request",
        "tokens",
    )

    def __init__(
        self,
        request: GenerationRequest,
        *,
        table: TokenBytes,
        eos: Collection[int],
        mask: TokenMask | None,
    ) -> None:
        self.request = request
        self.mask = mask
        self.draws = Draws(request.sampling.seed)
        self.tokens = list(request.prompt_ids)  # of prompt and answer
        self.prompt_tokens = len(self.tokens)
        self.generated = 0
        self.cached = 0  # tokens whose keys and values are in the cache
        self.need = self.prompt_tokens + request.sampling.max_tokens
        self._table = table
        self._eos = eos
        self._text = Detokenizer(table, request.sampling.stop)
        self._logprobs: deque[TokenLogprob] = deque()  # of tokens that are not counted yet

    @property
    def uncached(self) -> int:
        """Tokens of the prompt that are still to be computed."""
        return self.prompt_tokens - self.cached

    def take(self, token_id: int, told: PlaceLogprobs | None, events: list[Event]) -> bool:
        """Add a token and append what can be said of it; returns whether the request has ended."""
        if self.mask is not None:
            self.mask.accept(token_id)
        self.tokens.append(token_id)
        self.generated += 1
        if told is not None:
            self._logprobs.append(self._entry(token_id, told))
        piece = self._text.push((token_id,))
        reason = self._reason(token_id, piece)
        if reason is not None and not piece.stopped:
            rest = self._text.finish()
            piece = Piece(piece.text + rest.text, piece.tokens + rest.tokens, rest.stop)
            reason = "stop" if rest.stopped else reason
        if piece.text or piece.tokens:
            logprobs = self._counted(piece.tokens)
            events.append(Token(self.request.id, piece.text, piece.tokens, logprobs))
        if reason is None:
            return False
        events.append(Done(self.request.id, reason, self.prompt_tokens, self.generated, piece.stop))
        return True

    def _reason(self, token_id: int, piece: Piece) -> StopReason | None:
        if piece.stopped or token_id in self._eos:
            return "stop"
        return "length" if self.generated >= self.request.sampling.max_tokens else None

    def _counted(self, tokens: int) -> tuple[TokenLogprob, ...]:
        if not self._logprobs:
            return ()
        return tuple(self._logprobs.popleft() for _ in range(tokens))

    def _entry(self, token_id: int, told: PlaceLogprobs) -> TokenLogprob:
        top = tuple(Likely(self._table[other], logprob) for other, logprob in told.top)
        return TokenLogprob(self._table[token_id], told.chosen, top)
