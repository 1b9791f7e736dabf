"""The passages of documents as rows: written with their words, given their vectors, searched."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from django.db import connection

from inference.engines.vectors import Vector
from knowledge.models import Chunk, Document
from knowledge.words import words_of
from portal.core.ids import uuid7

_ROWS_A_STATEMENT: Final = 500

# Pairs need no parser, and the mark keeps the index's answer to one knowledge base.
_INSERT: Final = """
INSERT INTO knowledge_chunk (id, tenant_id, knowledge_base_id, document_id, version, position, text,
                             words)
SELECT id, %(tenant)s, %(base)s, %(document)s, %(version)s, position, text,
       to_tsvector('english', plain)
       || array_to_tsvector(array_remove(string_to_array(pairs, ' '), '') || %(mark)s::text)
  FROM unnest(%(ids)s::uuid[], %(positions)s::integer[], %(texts)s::text[], %(plain)s::text[],
              %(pairs)s::text[]) AS given (id, position, text, plain, pairs)
"""
_SET_VECTORS: Final = """
INSERT INTO knowledge_chunkvector (chunk_id, tenant_id, knowledge_base_id, document_id, version,
                                   embedding)
SELECT c.id, c.tenant_id, c.knowledge_base_id, c.document_id, c.version,
       l2_normalize(given.vector::vector)::halfvec
  FROM unnest(%s::integer[], %s::text[]) AS given (position, vector)
  JOIN knowledge_chunk c ON c.position = given.position
 WHERE c.tenant_id = %s AND c.document_id = %s AND c.version = %s
"""


def mark_of(knowledge_base_id: UUID) -> str:
    """The word that every passage of a knowledge base has beside those of its text."""
    return f"kb{knowledge_base_id.hex}"


def write_passages(document: Document, texts: Sequence[str]) -> None:
    """Writes the passages of the newest version, in the place of any that it has."""
    Chunk.objects.filter(document_id=document.pk, version=document.latest).delete()
    for first in range(0, len(texts), _ROWS_A_STATEMENT):
        some = texts[first : first + _ROWS_A_STATEMENT]
        words = [words_of(text) for text in some]
        with connection.cursor() as cursor:
            cursor.execute(
                _INSERT,
                {
                    "tenant": document.tenant_id,
                    "base": document.knowledge_base_id,
                    "document": document.pk,
                    "version": document.latest,
                    "mark": mark_of(document.knowledge_base_id),
                    "ids": [uuid7() for _ in some],
                    "positions": list(range(first, first + len(some))),
                    "texts": list(some),
                    "plain": [w.plain for w in words],
                    "pairs": [" ".join((*w.pairs, *w.singles)) for w in words],
                },
            )


def set_vectors(document: Document, positions: Sequence[int], vectors: Sequence[Vector]) -> None:
    """Gives passages of the newest version their vectors."""
    texts = [vector_text(vector) for vector in vectors]
    with connection.cursor() as cursor:
        cursor.execute(
            _SET_VECTORS,
            [list(positions), texts, document.tenant_id, document.pk, document.latest],
        )


def vector_text(vector: Vector) -> str:
    """A vector as PostgreSQL reads it; nine digits say all of 32 bits."""
    return f"[{','.join(f'{number:.9g}' for number in vector)}]"
