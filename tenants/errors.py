"""Refusals of the tenants app that callers tell apart by their code."""

from portal.core.actors import Context
from portal.core.errors import Conflict, Forbidden, Unauthenticated


class InvalidApiKey(Unauthenticated):
    """The key is malformed, unknown, wrong, revoked, expired or bound to a browser session."""

    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("The API key is not valid: check it, or create a new one.")


class TenantNotActive(Forbidden):
    """The tenant is suspended or closed."""

    code = "tenant_not_active"

    def __init__(self) -> None:
        super().__init__("This tenant is not active; ask your administrator.")


class UserNotActive(Forbidden):
    """The person behind the credential is deactivated."""

    code = "user_not_active"

    def __init__(self) -> None:
        super().__init__("The owner of this API key is deactivated.")


class NetworkNotAllowed(Forbidden):
    """The key is right and may not be used from the caller's address.

    Args:
        context: whose key it is, for the record; it may do nothing.
    """

    code = "network_not_allowed"

    def __init__(self, context: Context) -> None:
        super().__init__(
            "This API key may not be used from your network: call from a network that it allows, "
            "or ask its owner to add yours."
        )
        self.context = context


class LastOwner(Conflict):
    """A tenant keeps at least one owner."""

    code = "last_owner"

    def __init__(self) -> None:
        super().__init__("A tenant needs an owner: make another member owner first.")


class SeparatedDuties(Conflict):
    """One account would hold duties that are kept apart."""

    code = "separated_duties"
