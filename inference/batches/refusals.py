"""What a refusal at admission means to a batch."""

from typing import Final

from inference.gateway.admission import Ask
from portal.core.errors import PortalError

# Gone after a while by themselves, or once an administrator acts.
_PASSING: Final = frozenset({"queue_too_long", "model_not_available", "tenant_not_active"})
_LIMITS: Final = frozenset({"rate_limit_exceeded", "insufficient_quota"})


def passes(ask: Ask | None, error: PortalError) -> bool:
    """Whether the same line may be admitted later, and so is to wait.

    A line that needs more than a limit allows at all, or more than is left of one that never
    fills up again, can't be.
    """
    if error.error_code in _PASSING:
        return True
    if error.error_code not in _LIMITS or ask is None or error.data.get("window") == "total":
        return False
    needs = {"tokens": ask.tokens, "requests": 1, "cost": ask.cost}
    return needs[str(error.data["unit"])] <= int(error.data["limit"])


def ends_the_batch(error: PortalError) -> bool:
    """Whether the key itself may not be used any more, so that no line can ever be run."""
    return error.error_status in (401, 403) and error.error_code != "tenant_not_active"
