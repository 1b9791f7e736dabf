"""The Celery application: inference workers, io workers and beat.

Messages only wake and schedule; what there is to do stands in PostgreSQL. So a message that is
lost or delivered twice changes nothing.
"""

import os
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from celery import Celery
from celery.signals import setup_logging, task_postrun, worker_init

from portal.core import logging as portal_logging
from portal.core.boot import refuse_unbound_role
from portal.core.env import env
from portal.core.periodic import note_run
from portal.core.resp import RespClient


def broker_url(url: str) -> str:
    """A Redis URL as kombu spells it: Unix sockets differ."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    login = f"{parts.netloc}" if "@" in parts.netloc else ""
    return f"redis+socket://{login}{parts.path}?virtual_host={database}"


app = Celery("freehold")
app.conf.update(
    broker_url=broker_url(env().redis_url.get_secret_value()),
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "visibility_timeout": 3600,
    },
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue="io",
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    timezone="UTC",
    imports=(
        "inference.tasks",
        "audit.tasks",
        "tenants.tasks",
        "tenants.closing.tasks",
        "knowledge.applications.tasks",
        "knowledge.connections.tasks",
        "knowledge.sync.tasks",
        "knowledge.tasks",
        "knowledge.sources.tasks",
        "knowledge.triggers.tasks",
    ),
    beat_schedule={
        "sweep": {"task": "inference.sweep", "schedule": 1.0, "options": {"expires": 1.0}},
        "webhooks": {
            "task": "inference.deliver_webhooks",
            "schedule": 1.0,
            "options": {"expires": 1.0},
        },
        "quota-warnings": {
            "task": "tenants.warn_of_quotas",
            "schedule": 15.0,
            "options": {"expires": 15.0},
        },
        "batches": {
            "task": "inference.run_batches",
            "schedule": 1.0,
            "options": {"expires": 1.0},
        },
        "documents-read": {
            "task": "knowledge.read_documents",
            "schedule": 1.0,
            "options": {"expires": 1.0},
        },
        "documents-embedded": {
            "task": "knowledge.embed_documents",
            "schedule": 1.0,
            "options": {"expires": 1.0},
        },
        "sources": {
            "task": "knowledge.read_sources",
            "schedule": 1.0,
            "options": {"expires": 1.0},
        },
        "files": {"task": "inference.sweep_files", "schedule": 60.0, "options": {"expires": 60.0}},
        "file-checks": {
            "task": "inference.check_files",
            "schedule": 5.0,
            "options": {"expires": 5.0},
        },
        "partitions": {"task": "audit.ensure_partitions", "schedule": 6 * 3600.0},
        "usage": {"task": "tenants.roll_up_usage", "schedule": 10.0, "options": {"expires": 10.0}},
        "conversations": {
            "task": "knowledge.expire_conversations",
            "schedule": 60.0,
            "options": {"expires": 60.0},
        },
        "connections": {
            "task": "knowledge.check_connections",
            "schedule": 10.0,
            "options": {"expires": 10.0},
        },
        "sync": {"task": "knowledge.sync", "schedule": 1.0, "options": {"expires": 1.0}},
        "triggers": {
            "task": "knowledge.run_triggers",
            "schedule": 1.0,
            "options": {"expires": 1.0},
        },
        "trigger-sweep": {
            "task": "knowledge.sweep_triggers",
            "schedule": 60.0,
            "options": {"expires": 60.0},
        },
        "close": {"task": "tenants.close", "schedule": 5.0, "options": {"expires": 5.0}},
        "export": {"task": "tenants.export", "schedule": 5.0, "options": {"expires": 5.0}},
    },
    beat_max_loop_interval=1,
)


@cache
def beat_intervals() -> dict[str, float]:
    """How often the tasks of the schedule are to run, in seconds, by their names."""
    return {e["task"]: float(e["schedule"]) for e in app.conf.beat_schedule.values()}


@cache
def _broker() -> RespClient:
    return RespClient(env().redis_url.get_secret_value())


@task_postrun.connect
def _note_periodic_run(task: Any, state: str, **kwargs: Any) -> None:
    if task.name in beat_intervals():
        note_run(_broker(), task.name, succeeded=state == "SUCCESS")


@worker_init.connect
def _refuse_unbound_role(**kwargs: Any) -> None:
    refuse_unbound_role(env().database_url(env().freehold_database_role))


@setup_logging.connect
def _configure_logging(**kwargs: Any) -> None:
    portal_logging.configure(env().log_format, env().log_level, portal_logging.process_name())


def _add_inference_worker() -> None:
    """An inference worker is a Celery worker with a deployment to serve."""
    if env().worker_deployment:
        from inference.worker.bootstep import InferenceStep

        app.steps["worker"].add(InferenceStep)


_add_inference_worker()
