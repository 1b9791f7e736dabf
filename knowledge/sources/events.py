"""What sources of documents tell the audit trail."""

from enum import StrEnum


class SourceEvent(StrEnum):
    """Names of events; they are stored, so they never change."""

    CREATE = "source.create"
    EDIT = "source.edit"
    DELETE = "source.delete"
    TEST = "source.test"
    RUN = "source.run"
    FAIL = "source.fail"
    RECOVER = "source.recover"
