"""Celery tasks of apps."""

import psycopg
import structlog
from celery import shared_task

from knowledge.applications.expiry import expire_conversations
from portal.core.env import env

log = structlog.get_logger(__name__)


@shared_task(name="knowledge.expire_conversations")
def expire() -> None:
    """Deletes conversations that have been kept as long as their app asks."""
    url = env().database_url("gateway")
    with psycopg.connect(url, autocommit=True, application_name="apps", connect_timeout=5) as link:
        deleted = expire_conversations(link)
    if deleted:
        log.info("conversations.expired", conversations=deleted)
