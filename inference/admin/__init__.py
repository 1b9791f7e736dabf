"""Admin pages of jobs, and of what serves them."""

from inference.admin.catalogue import WORKER_STATE_KINDS, Health, health_of
from inference.admin.jobs import JOB_STATE_KINDS, timeline
from inference.admin.routes import RouteAdmin
from inference.admin.words import duration_text, money

__all__ = [
    "JOB_STATE_KINDS",
    "WORKER_STATE_KINDS",
    "Health",
    "RouteAdmin",
    "duration_text",
    "health_of",
    "money",
    "timeline",
]
