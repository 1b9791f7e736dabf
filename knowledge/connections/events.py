"""What connections tell the audit trail."""

from enum import StrEnum


class ConnectionEvent(StrEnum):
    """Names of events; they are stored, so they never change."""

    CREATE = "connection.create"
    EDIT = "connection.edit"
    DELETE = "connection.delete"
    CHECK = "connection.check"
    SHARE = "connection.share"
    CONFIRM_LICENCE = "connection.confirm_licence"
    CREATE_WORKSPACE = "connection.create_workspace"
    FAIL = "connection.fail"
    RECOVER = "connection.recover"
    UPGRADE = "connection.upgrade"
