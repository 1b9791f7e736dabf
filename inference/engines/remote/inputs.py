"""Inputs that a server embeds or ranks: handed to it a part at a time."""

from array import array
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenizers import Tokenizer

from inference.artefacts import EmbeddingFacts
from inference.engines.base import Embedding, GenerationRequest, Message, Sampling
from inference.engines.embedding import refusal_of_inputs, scores
from inference.engines.embedding_wire import (
    Inputs,
    embedding_call,
    ranking_call,
    read_embeddings,
    read_ranking,
)
from inference.engines.remote.answer import Chunk
from inference.engines.remote.faults import UpstreamFault, failed
from inference.engines.vectors import Vector, pack_vectors, unit

MOST_INPUTS: Final = 256
"""Inputs of one call, where the server doesn't say how many it takes."""

# Of one call; servers bound bodies, some of them at two megabytes.
_MOST_CHARS: Final = 400_000

Ask = Callable[[str, dict[str, Any]], Awaitable[bytes]]
"""Sends a body to a path, and gives the body of the answer."""


def proof_of_inputs(request_id: str, *, pairs: bool) -> GenerationRequest:
    """A request whose answer shows that the server does what the model is for.

    Args:
        pairs: whether it ranks, see ``EmbeddingFacts``.
    """
    texts = (Message("query", "Hello"), Message("document", "Hello"))
    embedding = Embedding("rank", (0, 1)) if pairs else Embedding("embed", (1, 1))
    return GenerationRequest(request_id, (), texts, Sampling(0), embedding=embedding)


@dataclass(frozen=True, slots=True)
class InputServer:
    """One model of one server that embeds or ranks.

    Args:
        facts: what the artefact says of the model.
        tokenizer: the model's own, kept for this alone; None sends texts, and not token ids.
        context_length: most tokens of an input.
        most_inputs: of one call.
    """

    family: str
    model: str
    facts: EmbeddingFacts
    tokenizer: Tokenizer | None
    context_length: int
    most_inputs: int = MOST_INPUTS

    async def answer(self, request: GenerationRequest, cache_salt: str, ask: Ask) -> Chunk:
        """The whole answer to a request that embeds or ranks.

        Raises:
            UpstreamFault: the request can't be served, or the server failed.
        """
        refusal = refusal_of_inputs(
            request, pairs=self.facts.pairs, context_length=self.context_length
        )
        if refusal is not None:
            raise UpstreamFault(refusal.error_code, refusal.message)
        embedding = request.embedding
        assert embedding is not None, "others are refused"
        if self.facts.pairs:
            vectors, tokens = await self._ranked(request.messages, cache_salt, ask)
        else:
            vectors, tokens = await self._embedded(request.messages, cache_salt, ask)
            if embedding.kind == "rank":
                vectors = [scores(vectors, pairs=False)]
            elif embedding.dimensions:
                vectors = [unit(vector[: embedding.dimensions]) for vector in vectors]
        return Chunk(
            text=pack_vectors(vectors),
            tokens=0,
            reason="stop",
            prompt_tokens=sum(embedding.tokens) if tokens is None else tokens,
        )

    async def _embedded(
        self, messages: Sequence[Message], cache_salt: str, ask: Ask
    ) -> tuple[list[Vector], int | None]:
        found: list[Vector] = []
        told: list[int | None] = []
        for part in self._parts(messages):
            call = embedding_call(self.family, self.model, self._inputs(part), cache_salt)
            numbers = read_embeddings(await ask(*call), len(part))
            self._check_length(numbers.vectors)
            found += numbers.vectors
            told.append(numbers.tokens)
        return found, _sum(told)

    async def _ranked(
        self, messages: Sequence[Message], cache_salt: str, ask: Ask
    ) -> tuple[list[Vector], int | None]:
        query, *documents = messages
        found = array("f")
        told: list[int | None] = []
        for part in self._parts(documents):
            texts = [self._text(message) for message in part]
            call = ranking_call(self.family, self.model, query.content, texts, cache_salt)
            numbers = read_ranking(await ask(*call), len(part))
            found += numbers.vectors[0]
            told.append(numbers.tokens)
        return [found], _sum(told)

    def _parts(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """The inputs in calls that a server takes; one input always goes."""
        part: list[Message] = []
        chars = 0
        for message in messages:
            full = len(part) == self.most_inputs or chars + len(message.content) > _MOST_CHARS
            if part and full:
                yield part
                part, chars = [], 0
            part.append(message)
            chars += len(message.content)
        yield part

    def _inputs(self, messages: Sequence[Message]) -> Inputs:
        texts = [self._text(message) for message in messages]
        if self.tokenizer is None:
            return texts
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]

    def _text(self, message: Message) -> str:
        return self.facts.prefix(message.role) + message.content

    def _check_length(self, vectors: Sequence[Vector]) -> None:
        wanted = self.facts.dimensions
        if wanted and len(vectors[0]) != wanted:
            raise failed(
                f"The server's vectors have {len(vectors[0])} dimensions, and this artefact's "
                f"model makes {wanted}: it serves another model."
            )


def _sum(told: Sequence[int | None]) -> int | None:
    known = [tokens for tokens in told if tokens is not None]
    return sum(known) if len(known) == len(told) else None
