"""Celery tasks of knowledge bases: thin shells over services."""

from functools import cache
from typing import Final

import structlog
from celery import shared_task

from knowledge.indexing import embed_step, read_step
from knowledge.models import Document, DocumentState
from knowledge.turns import Step, Turns, Work
from portal.core.env import env

log = structlog.get_logger(__name__)

_DUE: Final = """
SELECT tenant_id, id FROM knowledge_document
 WHERE state = {} AND wake_at <= clock_timestamp() ORDER BY wake_at LIMIT 100
"""


@cache
def _reading() -> Turns:
    """This process's turns at files."""
    return _turns("documents", DocumentState.WAITING, read_step)


@cache
def _embedding() -> Turns:
    """This process's turns at passages that need vectors."""
    return _turns("passages", DocumentState.EMBEDDING, embed_step)


def _turns(name: str, state: DocumentState, step: Step) -> Turns:
    settings = env()
    work = Work(name, _DUE.format(state.value), step, Document)
    return Turns(settings.database_url("gateway"), work, slots=settings.document_slots)


@shared_task(name="knowledge.read_documents")
def read_documents() -> None:
    """Reads documents that wait for it; a large file holds up no embedding."""
    taken = _reading().take()
    if taken:
        log.info("documents.read", documents=taken)


@shared_task(name="knowledge.embed_documents")
def embed_documents() -> None:
    """Takes steps of documents that are being embedded."""
    _embedding().take()
