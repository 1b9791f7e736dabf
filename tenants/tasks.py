"""Celery tasks of the tenants app."""

from celery import shared_task

from portal.core.actors import Context
from tenants import services


@shared_task(name="tenants.roll_up_usage")
def roll_up_usage() -> None:
    """Brings the usage rollups up to the ledger."""
    services.roll_up_usage(context=Context.system("usage"))
