from inference.models.catalogue import Deployment, Model, ModelPrice, ModelVersion
from inference.models.dispatch import DeploymentClock, FairShare, QueueForecast, Worker
from inference.models.jobs import Job, JobPayload, JobState
from inference.models.routes import Route, RouteOverride, RouteTarget

__all__ = [
    "Deployment",
    "DeploymentClock",
    "FairShare",
    "Job",
    "JobPayload",
    "JobState",
    "Model",
    "ModelPrice",
    "ModelVersion",
    "QueueForecast",
    "Route",
    "RouteOverride",
    "RouteTarget",
    "Worker",
]
