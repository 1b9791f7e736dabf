"""Admin pages of jobs and batches, and of what serves them."""

from inference.admin import batches, model_pages
from inference.admin.catalogue import Health, health_of
from inference.admin.jobs import JOB_STATE_KINDS, timeline
from inference.admin.live import WORKER_STATE_KINDS
from inference.admin.routes import RouteAdmin
from inference.admin.webhooks import WebhookDeliveryAdmin, WebhookSecretAdmin
from inference.admin.words import duration_text, money

__all__ = [
    "JOB_STATE_KINDS",
    "WORKER_STATE_KINDS",
    "Health",
    "RouteAdmin",
    "WebhookDeliveryAdmin",
    "WebhookSecretAdmin",
    "batches",
    "duration_text",
    "health_of",
    "model_pages",
    "money",
    "timeline",
]
