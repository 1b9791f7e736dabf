"""What callers of an app are told where Dify does not answer.

They know nothing of Dify and can change nothing there: they are told whether it is worth another
try. Who looks after the app reads the rest on its page.
"""

from typing import Final

from knowledge.dify import errors
from portal.core.errors import PortalError


class AppAway(PortalError):
    """Where the app runs can't be reached, or fails."""

    code = "app_away"
    status = 503


class AppUnusable(PortalError):
    """Where the app runs, it was switched off, deleted, or is not whole."""

    code = "app_unusable"
    status = 503


class AppNotReady(PortalError):
    """The app is on its way to where it is to run."""

    code = "app_not_ready"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The app is being put where it is to run; try again in a moment.", retry_after=5.0
        )


class AppBusy(PortalError):
    code = "app_busy"
    status = 503


class ConversationGone(PortalError):
    code = "conversation_gone"
    status = 404


class AppFailed(PortalError):
    """The app ran and failed."""

    code = "app_failed"
    status = 502


_AWAY: Final = "Where the app runs does not answer at the moment; try again in a while."
_UNUSABLE: Final = (
    "The app can't be used where it runs: ask whoever looks after it to see its page in the portal."
)
_FAILED: Final = "The app failed while it answered; try again, or ask whoever looks after it."
_GONE: Final = "The conversation is gone where the app runs: begin another one."
_BUSY: Final = "The app takes no more calls for the moment."


def told(fault: errors.DifyFault) -> PortalError:
    """What a fault of Dify is to whoever called the app."""
    if isinstance(fault, errors.Busy):
        return AppBusy(_BUSY, retry_after=fault.retry_after)
    if isinstance(fault, errors.NoRoute):
        return AppUnusable(_UNUSABLE)
    if isinstance(fault, errors.Missing):
        return ConversationGone(_GONE)
    if isinstance(fault, _FAILING):
        return AppFailed(_FAILED)
    if isinstance(fault, errors.Refused):
        return AppUnusable(_UNUSABLE)
    return AppAway(_AWAY)


_FAILING: Final = (errors.ModelFailed, errors.ModelUnavailable)
