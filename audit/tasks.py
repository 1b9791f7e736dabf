"""Celery tasks of the audit trail."""

from celery import shared_task

from audit.services import ensure_partitions
from portal.core.actors import Context
from portal.core.tenancy import bare_scope


@shared_task(name="audit.ensure_partitions")
def make_partitions() -> None:
    """Makes the trail's partitions three months ahead."""
    with bare_scope(Context.system("partitions")):
        ensure_partitions()
