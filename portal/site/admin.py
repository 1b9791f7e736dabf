"""The admin site."""

from unfold.sites import UnfoldAdminSite


class PortalAdminSite(UnfoldAdminSite):
    """The web UI of IT teams and tenants."""
