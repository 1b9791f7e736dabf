"""What triggers tell the audit trail."""

from enum import StrEnum


class TriggerEvent(StrEnum):
    """Names of events; they are stored, so they never change."""

    CREATE = "trigger.create"
    EDIT = "trigger.edit"
    DELETE = "trigger.delete"
    START = "trigger.start"
    ALERT = "trigger.alert"
    ACCEPT_EVENTS = "trigger.accept_events"
