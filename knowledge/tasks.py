"""Celery tasks of knowledge bases: thin shells over services."""

from functools import cache

import structlog
from celery import shared_task

from knowledge.indexing import embed_step, read_step
from knowledge.models import DocumentState
from knowledge.turns import Step, Turns
from portal.core.env import env

log = structlog.get_logger(__name__)


@cache
def _reading() -> Turns:
    """This process's turns at files."""
    return _turns(DocumentState.WAITING, read_step)


@cache
def _embedding() -> Turns:
    """This process's turns at passages that need vectors."""
    return _turns(DocumentState.EMBEDDING, embed_step)


def _turns(state: DocumentState, step: Step) -> Turns:
    settings = env()
    return Turns(settings.database_url("gateway"), state, step, slots=settings.document_slots)


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
