"""Celery tasks of the tenants app: thin shells."""

import psycopg
import structlog
from celery import shared_task

from portal.core.actors import Context
from portal.core.env import env
from tenants import services, warner

log = structlog.get_logger(__name__)


@shared_task(name="tenants.roll_up_usage")
def roll_up_usage() -> None:
    """Brings the usage rollups up to the ledger."""
    services.roll_up_usage(context=Context.system("usage"))


@shared_task(name="tenants.warn_of_quotas")
def warn_of_quotas() -> None:
    """One round of warnings, as ``portal_gateway``: it crosses tenants."""
    url = env().database_url("gateway")
    with psycopg.connect(
        url, autocommit=True, application_name="quota-warnings", connect_timeout=5
    ) as connection:
        recorded = warner.warn(connection)
    if recorded:
        log.info("quotas.warned", warnings=recorded)
