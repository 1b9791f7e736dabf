"""What apps tell the audit trail."""

from enum import StrEnum


class AppEvent(StrEnum):
    """Names of events; they are stored, so they never change."""

    CREATE = "app.create"
    EDIT = "app.edit"
    ADD_VERSION = "app.add_version"
    PUBLISH = "app.publish"
    WITHDRAW = "app.withdraw"
    DEPLOY = "app.deploy"
    UNDEPLOY = "app.undeploy"
    DELETE = "app.delete"
    DELETE_CONVERSATION = "app.delete_conversation"
    RATE = "app.rate"
