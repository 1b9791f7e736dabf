"""Engines that embed and rank: inputs of many requests go through the model together.

A step takes inputs of all running requests in turn, one of each, up to a number of tokens. So a
request of two thousand inputs and one of a single input advance side by side.
"""

from abc import abstractmethod
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from inference.engines.base import (
    Done,
    Emit,
    Event,
    GenerationRequest,
    Message,
    Token,
)
from inference.engines.stepping import RequestRefused, StepEngine
from inference.engines.vectors import Vector, dot, pack_vectors


@dataclass(frozen=True, slots=True)
class Work:
    """One input to go through the model.

    Args:
        message: the text, and whether it is a query or a document.
        query: what a document is compared with, by engines that read both at once.
        tokens: prompt tokens of what the model reads.
        dimensions: length of the vector; 0 for the model's own.
    """

    message: Message
    query: str
    tokens: int
    dimensions: int


@dataclass(slots=True)
class _Run:
    """A running request: what is left to do, and what came out so far, in order."""

    request: GenerationRequest
    left: deque[Work]
    found: list[Vector] = field(default_factory=list)


class EmbeddingEngine(StepEngine):
    """An engine whose subclass makes numbers of texts.

    Args:
        batch_tokens: most tokens that go through the model in a step; one input goes always.
    """

    reads_pairs: bool = False
    """Whether ranking reads query and document together, instead of comparing their vectors."""

    def __init__(self, *, slots: int, batch_tokens: int, context_length: int, emit: Emit) -> None:
        super().__init__(slots=slots, context_length=context_length, emit=emit)
        self._batch_tokens = batch_tokens
        self._runs: dict[str, _Run] = {}

    @abstractmethod
    def _compute(self, batch: Sequence[Work]) -> Sequence[Vector]:
        """A vector of length 1 of each input; of a pair its score, a vector of one number."""

    def _start(self, request: GenerationRequest) -> None:
        self._runs[request.id] = _Run(request, deque(self._work(request)))

    def _stop(self, request_id: str) -> None:
        self._runs.pop(request_id, None)

    def _has_room(self, request: GenerationRequest) -> bool:
        return True

    def _refusal(self, request: GenerationRequest) -> RequestRefused | None:
        return refusal_of_inputs(
            request, pairs=self.reads_pairs, context_length=self._context_length
        )

    def _work(self, request: GenerationRequest) -> list[Work]:
        embedding, messages = request.embedding, request.messages
        assert embedding is not None, "others are refused"
        inputs = list(zip(messages, embedding.tokens, strict=True))
        if embedding.kind == "rank" and self.reads_pairs:
            query = messages[0].content
            return [Work(m, query, tokens, 0) for m, tokens in inputs[1:]]
        return [Work(m, "", tokens, embedding.dimensions) for m, tokens in inputs]

    def _step(self) -> Sequence[Event]:
        taken = self._take()
        results = self._compute([work for _, work in taken])
        for (run, _), vector in zip(taken, results, strict=True):
            run.found.append(vector)
        ended = [run for run in self._runs.values() if not run.left]
        return [event for run in ended for event in self._end(run)]

    def _take(self) -> list[tuple[_Run, Work]]:
        """The next inputs, one of each request in turn, as many as fit into a step."""
        turns = deque(run for run in self._runs.values() if run.left)
        taken: list[tuple[_Run, Work]] = []
        tokens = 0
        while turns:
            run = turns.popleft()
            work = run.left[0]
            if taken and tokens + work.tokens > self._batch_tokens:
                # Who has not had a turn comes first in the next step.
                self._runs = {r.request.id: r for r in (run, *turns)} | self._runs
                break
            taken.append((run, run.left.popleft()))
            tokens += work.tokens
            if run.left:
                turns.append(run)
        return taken

    def _end(self, run: _Run) -> list[Event]:
        request, embedding = run.request, run.request.embedding
        assert embedding is not None
        del self._runs[request.id]
        vectors = run.found
        if embedding.kind == "rank":
            vectors = [scores(vectors, pairs=self.reads_pairs)]
        return [
            Token(request.id, pack_vectors(vectors), 0),
            Done(request.id, "stop", sum(embedding.tokens), 0),
        ]

    def _release(self) -> None:
        self._runs.clear()


def refusal_of_inputs(
    request: GenerationRequest, *, pairs: bool, context_length: int
) -> RequestRefused | None:
    """What a model that embeds or ranks can't do of a request, or None.

    Args:
        pairs: whether it ranks alone, reading query and document together.
        context_length: most tokens of an input.
    """
    embedding = request.embedding
    if embedding is None:
        return RequestRefused("This engine makes embeddings: it generates no text.")
    if not request.messages or len(embedding.tokens) != len(request.messages):
        return RequestRefused("There is nothing to embed.", code="invalid_prompt")
    if embedding.kind == "embed" and pairs:
        return RequestRefused("This model ranks documents: it makes no embeddings.")
    if max(embedding.tokens) > context_length:
        return RequestRefused(
            f"An input exceeds the context of {context_length} tokens.",
            code="context_length_exceeded",
        )
    return None


def scores(found: Sequence[Vector], *, pairs: bool) -> Vector:
    """How well each document answers the query.

    Args:
        found: scores of the pairs; else the query's vector and the documents'.
    """
    if pairs:
        return array("f", (score[0] for score in found))
    query, *documents = found
    return array("f", (dot(query, document) for document in documents))
