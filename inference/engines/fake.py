"""An engine without a model: fixed text at a fixed pace, for tests and for measuring the rest."""

import hashlib
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from inference.engines.base import (
    Calls,
    Done,
    Emit,
    EngineOptions,
    Event,
    Failed,
    GenerationRequest,
    Likely,
    StopReason,
    Token,
    TokenLogprob,
)
from inference.engines.fake_vectors import fake_answer
from inference.engines.options import parse_options
from inference.engines.stepping import RequestRefused, StepEngine
from inference.engines.text import Piece, StopFilter, taken

_WORDS = (
    "every token here is made by a clock and not by a model so that what is measured is the "
    "way from the engine to the reader "
)
# After a stall the engine catches up at most this long, so that its mean pace holds but a
# suspended machine does not wake to a flood.
_MOST_CATCH_UP_SECONDS = 0.25


class FakeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the fake engine.

    Args:
        token_ms: length of a step in milliseconds; 0 gives a whole answer in one step.
        slots: requests that run at once; each gets one token a step.
        first_token_ms: least time from the start of a request to its first token.
        tokens: natural length of an answer; None goes on to ``max_tokens``.
        text: repeated as the answer, a token a word.
        answers: what is said, once and as it stands, a token a character, to a request whose last
            message has the key in it; the first that fits, in the place of ``text``.
        structured_text: the whole answer to a request for a structure, a token a word. Of one that
            must call a tool, the arguments of its call of the first, a token a character.
        clock: each token is the moment at which it was made instead, by ``time.monotonic_ns()``,
            so that a reader on this machine sees how long it was under way.
        fail_on: a request with this in a message fails.
        fail_after: tokens that such a request still gets.
        fail_code: what it fails with: the request was refused, or the engine itself died.
        dimensions: length of the vectors of a request that embeds; such a request takes a step,
            and ``first_token_ms`` at least.
    """

    token_ms: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    slots: Annotated[int, msgspec.Meta(ge=1)] = 64
    first_token_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    text: Annotated[str, msgspec.Meta(min_length=1)] = _WORDS
    answers: dict[str, str] = {}
    structured_text: Annotated[str, msgspec.Meta(min_length=1)] = "{}"
    clock: bool = False
    fail_on: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    fail_after: Annotated[int, msgspec.Meta(ge=0)] = 0
    fail_code: Literal["request_refused", "engine_failed"] = "request_refused"
    dimensions: Annotated[int, msgspec.Meta(ge=1)] = 8


class _Run:
    """One running request."""

    __slots__ = (
        "emitted",
        "fail_at",
        "filter",
        "first_at",
        "length",
        "logprobs",
        "offset",
        "reason",
        "request",
        "words",
    )

    def __init__(
        self, request: GenerationRequest, options: FakeOptions, words: Sequence[str], offset: int
    ) -> None:
        most, natural = request.sampling.max_tokens, options.tokens
        said = _said(request, options)
        if said is not None:
            words, natural, offset = said, len(said), 0
        elif natural is not None:
            natural = max(natural, request.sampling.min_tokens)
        self.words = words
        self.logprobs: list[TokenLogprob] = []
        self.request = request
        self.reason: StopReason = "length" if natural is None or natural >= most else "stop"
        self.length = most if natural is None else min(most, natural)
        self.offset = offset
        self.emitted = 0
        self.first_at = time.monotonic() + options.first_token_ms / 1000
        self.filter = StopFilter(request.sampling.stop)
        marker = options.fail_on
        fails = marker is not None and any(marker in m.content for m in request.messages)
        self.fail_at = options.fail_after if fails else None


class FakeEngine(StepEngine):
    """Serves without a model; see ``FakeOptions``. The text depends on the prompt alone."""

    def __init__(
        self,
        *,
        artefact_dir: Path,
        context_length: int,
        options: EngineOptions,
        emit: Emit,
    ) -> None:
        self._options = parse_options(FakeOptions, options, engine="fake")
        super().__init__(slots=self._options.slots, context_length=context_length, emit=emit)
        self._words = _words(self._options.text)
        self._runs: dict[str, _Run] = {}
        self._deadline = 0.0

    def _open(self) -> None:
        """Nothing to load."""

    def _has_room(self, request: GenerationRequest) -> bool:
        return True

    def _refusal(self, request: GenerationRequest) -> RequestRefused | None:
        return None if request.embedding is not None else super()._refusal(request)

    def _start(self, request: GenerationRequest) -> None:
        prompt = array("I", request.prompt_ids).tobytes()
        digest = hashlib.blake2b(prompt, digest_size=2).digest()
        offset = int.from_bytes(digest) % len(self._words)
        if not self._runs:
            self._deadline = time.monotonic()
        self._runs[request.id] = _Run(request, self._options, self._words, offset)

    def _stop(self, request_id: str) -> None:
        self._runs.pop(request_id, None)

    def _release(self) -> None:
        self._runs.clear()

    def _step(self) -> Sequence[Event]:
        if self._options.token_ms and not self._paced():
            return []
        now = time.monotonic()
        events: list[Event] = []
        for run in list(self._runs.values()):
            if run.first_at > now:
                continue
            if run.request.embedding is not None:
                self._embed(run, events)
                continue
            self._advance(run, events)
            while not self._options.token_ms and run.request.id in self._runs:
                self._advance(run, events)
        return events

    def _embed(self, run: _Run, events: list[Event]) -> None:
        """Ends a request that embeds."""
        request, embedding = run.request, run.request.embedding
        assert embedding is not None
        del self._runs[request.id]
        if run.fail_at is not None:
            events.append(self._failure_of(request.id))
            return
        events.append(Token(request.id, fake_answer(request, self._options.dimensions), 0))
        events.append(Done(request.id, "stop", sum(embedding.tokens), 0))

    def _failure_of(self, request_id: str) -> Failed:
        message = "The fake engine fails this request as its options say."
        if self._options.fail_code == "engine_failed":
            self._failure = message
        return Failed(request_id, self._options.fail_code, message)

    def _paced(self) -> bool:
        """Wait for the end of this step; False if a cancellation came first."""
        step = self._options.token_ms / 1000
        due = self._deadline + step
        with self._changed:
            if self._changed.wait_for(lambda: bool(self._cancels), due - time.monotonic()):
                return False
        self._deadline = max(due, time.monotonic() - _MOST_CATCH_UP_SECONDS)
        return True

    def _text(self, words: Sequence[str], start: int, count: int) -> str:
        if self._options.clock:
            return f"{time.monotonic_ns()} " * count
        return "".join(words[n % len(words)] for n in range(start, start + count))

    def _advance(self, run: _Run, events: list[Event]) -> None:
        request_id = run.request.id
        end = run.length if run.fail_at is None else min(run.length, run.fail_at)
        count = end - run.emitted
        # One by one where a stop string may end the answer: nothing is generated after it.
        if self._options.token_ms or run.request.sampling.stop:
            count = min(count, 1)
        start = run.offset + run.emitted
        text = self._text(run.words, start, count)
        if run.request.sampling.logprobs is not None:
            run.logprobs += (_logprob(run, n) for n in range(start, start + count))
        run.emitted += count
        piece = run.filter.push(text, count)
        if piece.text or piece.tokens:
            events.append(_token(run, piece))
        if run.emitted < end and not piece.stopped:
            return
        if not piece.stopped:
            rest = run.filter.finish()
            if rest.text or rest.tokens:
                events.append(_token(run, rest))
        del self._runs[request_id]
        if run.fail_at is not None and run.emitted == run.fail_at and not piece.stopped:
            events.append(self._failure_of(request_id))
            return
        reason: StopReason = "stop" if piece.stopped else run.reason
        prompt = len(run.request.prompt_ids)
        events.append(Done(request_id, reason, prompt, run.emitted, piece.stop))


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split()] or [text]


def _said(request: GenerationRequest, options: FakeOptions) -> Sequence[str] | None:
    """The tokens of an answer that is said once; None for a text that is repeated."""
    structure = request.sampling.structure
    calls = None if structure is None else structure.calls
    if calls is not None and calls.forced:
        return tuple(_called(calls, options.structured_text))
    last = request.messages[-1].content if options.answers and request.messages else ""
    answer = next((said for key, said in options.answers.items() if key in last), None)
    if answer is not None:
        return tuple(answer)
    return None if structure is None or calls is not None else _words(options.structured_text)


def _called(calls: Calls, arguments: str) -> str:
    tag = calls.tags[0]
    parts = (calls.opener, calls.first, tag.begin, arguments, tag.end, calls.after)
    return "".join(parts)


def _token(run: _Run, piece: Piece) -> Token:
    return Token(run.request.id, piece.text, piece.tokens, taken(run.logprobs, piece.tokens))


def _logprob(run: _Run, place: int) -> TokenLogprob:
    """Made up, the same each time: the chosen word is the likeliest, those after it follow."""
    count = len(run.words)
    likely = [
        Likely(run.words[(place + n) % count].encode(), -0.25 - n)
        for n in range(max(1, run.request.sampling.logprobs or 0))
    ]
    top = tuple(likely) if run.request.sampling.logprobs else ()
    return TokenLogprob(likely[0].token, likely[0].logprob, top)
