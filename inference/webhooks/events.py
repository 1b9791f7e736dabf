"""What webhooks tell the audit trail."""

from enum import StrEnum


class WebhookEvent(StrEnum):
    """Names of events; they are stored, so they never change."""

    DELIVER = "webhook.deliver"
    REDELIVER = "webhook.redeliver"
    TEST = "webhook.test"
    CREATE_SECRET = "webhook.create_secret"  # noqa: S105
    ROTATE_SECRET = "webhook.rotate_secret"  # noqa: S105
