from inference.models.batches import (
    LIVE_BATCH_STATES,
    Batch,
    BatchLine,
    BatchState,
    File,
    FileChunk,
    FilePurpose,
    FileState,
    LineState,
)
from inference.models.catalogue import Deployment, Model, ModelPrice, ModelVersion, Task
from inference.models.dispatch import (
    DeploymentClock,
    DesiredState,
    FairShare,
    QueueForecast,
    Worker,
    WorkerState,
)
from inference.models.jobs import IdempotencyKey, Job, JobPayload, JobState, Priority
from inference.models.routes import Route, RouteOverride, RouteTarget
from inference.models.webhooks import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookSecret,
    WebhookState,
)

__all__ = [
    "LIVE_BATCH_STATES",
    "Batch",
    "BatchLine",
    "BatchState",
    "Deployment",
    "DeploymentClock",
    "DesiredState",
    "FairShare",
    "File",
    "FileChunk",
    "FilePurpose",
    "FileState",
    "IdempotencyKey",
    "Job",
    "JobPayload",
    "JobState",
    "LineState",
    "Model",
    "ModelPrice",
    "ModelVersion",
    "Priority",
    "QueueForecast",
    "Route",
    "RouteOverride",
    "RouteTarget",
    "Task",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookSecret",
    "WebhookState",
    "Worker",
    "WorkerState",
]
