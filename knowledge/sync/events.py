"""What keeping in step tells the audit trail."""

from enum import StrEnum


class SyncEvent(StrEnum):
    """Names of events; they are stored, so they never change."""

    RUN = "sync.run"
    PAUSE = "sync.pause"
    RESUME = "sync.resume"
    DRIFT = "sync.drift"
    DECIDE = "sync.decide"
    DELETE = "sync.delete"
    FAIL = "sync.fail"
    RECOVER = "sync.recover"
