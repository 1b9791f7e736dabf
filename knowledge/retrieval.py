"""Finding the passages of a knowledge base that answer a question.

Four methods: by meaning (nearest vectors, compared exactly), by full text (the share of the
question's words that a passage has, rare words counting more), by both (a weighted sum of the two),
and by keywords (only passages that have every word). Scores are from 0 to 1, and
comparable within one method.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from django.db import connection

from inference.jobs.numbers import Numbers, ask, embedding_job, ranking_job
from inference.jobs.submission import JobRequest
from inference.models import Priority
from knowledge.accounts import NoKey, spending_context, usable_key
from knowledge.filters import Condition, matching_documents
from knowledge.models import KnowledgeBase, Method
from knowledge.models.bases import MOST_TOP_K
from knowledge.passages import vector_text
from knowledge.words import MOST_QUERY_WORDS, words_of
from portal.core.actors import Context
from portal.core.errors import Invalid, NotFound, PortalError
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant

MOST_QUERY_CHARS: Final = 2000
CANDIDATES: Final = 50
"""How many passages each list has before they are fused, or ranked by a model."""

MEANING_WEIGHT: Final = 0.7
"""What nearness counts in a hybrid search, words the rest; so it is in Dify, unless set."""

SECONDS: Final = 4.0
"""How long models are waited for in all; Dify waits 5 s for the answer."""

_WAIT_SECONDS: Final = 4

_NEAREST: Final = """
WITH asked AS (SELECT l2_normalize(%(vector)s::vector)::halfvec AS vector),
     nearest AS (
         SELECT v.chunk_id, v.embedding <#> (SELECT vector FROM asked) AS distance
           FROM knowledge_chunkvector v
           JOIN knowledge_document d
             ON d.tenant_id = v.tenant_id AND d.id = v.document_id AND d.version = v.version
          WHERE v.tenant_id = %(tenant)s AND v.knowledge_base_id = %(base)s
            AND d.enabled AND d.archived_at IS NULL AND d.embedded_by = %(maker)s
            AND (%(documents)s::uuid[] IS NULL OR d.id = ANY(%(documents)s::uuid[]))
          ORDER BY distance LIMIT %(most)s)
SELECT chunk_id, greatest(0, least(1, -distance)) FROM nearest ORDER BY distance
"""
_MATCHING: Final = """
SELECT chunk_id, score FROM knowledge_match(%(base)s, %(plain)s, %(pairs)s::text[],
    %(singles)s::text[], %(every)s, %(documents)s::uuid[], %(most)s)
"""
_READ: Final = """
SELECT c.id, c.text, c.position, d.id, d.name, c.version, d.metadata
  FROM knowledge_chunk c
  JOIN knowledge_document d ON d.tenant_id = c.tenant_id AND d.id = c.document_id
 WHERE c.tenant_id = %s AND c.knowledge_base_id = %s AND c.id = ANY(%s)
"""

Ranked = dict[UUID, float]
"""Scores by passage, best first."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What was found.

    Attributes:
        position: from 0, of the passage in its document.
    """

    id: UUID
    text: str
    score: float
    position: int
    document_id: UUID
    document: str
    version: int
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: passages, best first, and what could not be asked on the way, in a sentence."""

    passages: list[Passage]
    method: Method
    degraded: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how; what is None is as the knowledge base has it.

    Attributes:
        conditions: of documents' metadata; all of them must hold unless ``any_of``.
        rerank: False leaves out the knowledge base's reranking model.
    """

    query: str
    method: Method | None = None
    top_k: int | None = None
    score_threshold: float | None = None
    conditions: Sequence[Condition] = ()
    any_of: bool = False
    rerank: bool = True


def retrieve(*, context: Context, knowledge_base_id: UUID, question: Question) -> Found:
    """The passages of a knowledge base that answer a question best.

    Where the embedding or reranking model does not answer, what is found by words is given
    instead, and ``degraded`` says so; searched by meaning alone, it is refused.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such knowledge base here.
        Invalid: naming what is wrong with the question.
        Unavailable: the embedding model does not answer.
    """
    require(context, Action.KNOWLEDGE_RETRIEVE)
    require_tenant(context)
    _check(question)
    with tenant_scope(context):
        base = KnowledgeBase.objects.filter(pk=knowledge_base_id).first()
        if base is None:
            raise NotFound("There is no such knowledge base.")
        return _Search(base, question, context.request_id).run()


def _check(question: Question) -> None:
    if not question.query.strip() or "\0" in question.query:
        raise Invalid("'query' is empty.", param="query")
    if len(question.query) > MOST_QUERY_CHARS:
        raise Invalid(f"'query' may have {MOST_QUERY_CHARS} characters.", param="query")
    if question.top_k is not None and not 1 <= question.top_k <= MOST_TOP_K:
        raise Invalid(f"'top_k' must be from 1 to {MOST_TOP_K}.", param="top_k")
    threshold = question.score_threshold
    if threshold is not None and not 0 <= threshold <= 1:
        raise Invalid("'score_threshold' must be from 0 to 1.", param="score_threshold")


class _Search:
    """One call of ``retrieve``, inside the tenant's scope."""

    def __init__(self, base: KnowledgeBase, question: Question, request_id: str) -> None:
        self._base = base
        self._question = question
        self._request_id = request_id
        self._until = time.monotonic() + SECONDS
        self._degraded: list[str] = []

    def run(self) -> Found:
        question, base = self._question, self._base
        method = question.method or Method(base.method)
        documents = matching_documents(base.pk, question.conditions, any_of=question.any_of)
        top_k = question.top_k or base.top_k
        threshold = question.score_threshold
        least = (base.score_threshold if threshold is None else threshold) or 0.0
        passages = self._read(self._ranked(method, documents))
        if base.rerank_model and question.rerank and passages:
            passages = self._reranked(passages)
        best = [passage for passage in passages if passage.score >= least][:top_k]
        return Found(best, method, " ".join(self._degraded))

    def _ranked(self, method: Method, documents: list[UUID] | None) -> Ranked:
        if method == Method.SEMANTIC:
            return self._nearest(documents)
        words = self._matching(documents, every=method == Method.KEYWORD)
        if method != Method.HYBRID:
            return words
        try:
            return fused(self._nearest(documents), words)
        except PortalError as refusal:
            self._degraded.append(f"Found by full text alone: {refusal.message}")
            return words

    def _nearest(self, documents: list[UUID] | None) -> Ranked:
        base = self._base
        if not base.embedding_model:
            raise Invalid(
                "This knowledge base has no embedding model: search it by full text.",
                param="method",
            )
        numbers = self._asked(
            embedding_job(
                base.embedding_model,
                [self._question.query],
                role="query",
                priority=Priority.INTERACTIVE,
                wait_seconds=_WAIT_SECONDS,
            )
        )
        asked = {
            "vector": vector_text(numbers.vectors[0]),
            "maker": numbers.sku,
            "tenant": base.tenant_id,
            "base": base.pk,
            "documents": documents,
            "most": CANDIDATES,
        }
        return _scores(_NEAREST, asked)

    def _matching(self, documents: list[UUID] | None, *, every: bool) -> Ranked:
        words = words_of(self._question.query, most=MOST_QUERY_WORDS)
        if not words:
            return {}
        asked = {
            "base": self._base.pk,
            "plain": words.plain,
            "pairs": list(words.pairs),
            "singles": list(words.singles),
            "every": every,
            "documents": documents,
            "most": CANDIDATES,
        }
        return _scores(_MATCHING, asked)

    def _reranked(self, passages: list[Passage]) -> list[Passage]:
        texts = [passage.text for passage in passages]
        query = self._question.query
        try:
            numbers = self._asked(
                ranking_job(self._base.rerank_model, query, texts, wait_seconds=_WAIT_SECONDS)
            )
        except PortalError as refusal:
            self._degraded.append(f"Not reranked: {refusal.message}")
            return passages
        scored = [
            replace(passage, score=min(1.0, max(0.0, float(score))))
            for passage, score in zip(passages, numbers.vectors[0], strict=True)
        ]
        return sorted(scored, key=lambda passage: -passage.score)

    def _asked(self, request: JobRequest) -> Numbers:
        key = usable_key(self._base.api_key_id)
        if key is None:
            raise NoKey
        context = spending_context(key, self._request_id)
        left = max(0.0, self._until - time.monotonic())
        return ask(context=context, request=request, seconds=left)

    def _read(self, ranked: Ranked) -> list[Passage]:
        """The passages behind the scores, under row-level security whatever found them."""
        with connection.cursor() as cursor:
            cursor.execute(_READ, [self._base.tenant_id, self._base.pk, list(ranked)])
            rows = cursor.fetchall()
        passages = [
            Passage(id_, text, ranked[id_], position, document, name, version, _json(metadata))
            for id_, text, position, document, name, version, metadata in rows
        ]
        return sorted(passages, key=lambda passage: -passage.score)


def fused(nearest: Ranked, words: Ranked) -> Ranked:
    """A weighted sum of nearness and the share of words; 1 is the nearest, with every word.

    Nearness is from 0 of the last of the list to 1 of the first, for models differ in what cosine
    they give to what is near; the share of words is one already. Unlike a sum of reciprocal ranks
    it keeps how much better a passage is than the next: the first of those with one common word
    of the question doesn't pass what means the same. Source: Bruch, Gai and Ingber, "An Analysis of
    Fusion Functions for Hybrid Retrieval" (2023).
    """
    if not nearest:
        return words
    first, last = max(nearest.values()), min(nearest.values())
    width = (first - last) or 1.0
    scores = {
        passage: MEANING_WEIGHT * (1.0 if cosine == first else (cosine - last) / width)
        for passage, cosine in nearest.items()
    }
    for passage, share in words.items():
        scores[passage] = scores.get(passage, 0.0) + (1 - MEANING_WEIGHT) * share
    return dict(sorted(scores.items(), key=lambda scored: -scored[1]))


def _scores(statement: str, asked: Mapping[str, Any]) -> Ranked:
    with connection.cursor() as cursor:
        cursor.execute(statement, asked)
        return {passage: float(score) for passage, score in cursor.fetchall()}


def _json(value: Any) -> dict[str, Any]:
    read = json.loads(value) if isinstance(value, str) else value
    return dict(read)
