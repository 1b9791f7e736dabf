from inference.models.catalogue import Deployment, Model, ModelPrice, ModelVersion
from inference.models.dispatch import DeploymentClock, FairShare, QueueForecast, Worker
from inference.models.jobs import IdempotencyKey, Job, JobPayload, JobState, Priority
from inference.models.webhooks import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookSecret,
    WebhookState,
)

__all__ = [
    "Deployment",
    "DeploymentClock",
    "FairShare",
    "IdempotencyKey",
    "Job",
    "JobPayload",
    "JobState",
    "Model",
    "ModelPrice",
    "ModelVersion",
    "Priority",
    "QueueForecast",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookSecret",
    "WebhookState",
    "Worker",
]
