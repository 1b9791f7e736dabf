from django.contrib.admin.apps import AdminConfig


class PortalAdminConfig(AdminConfig):
    """Django's admin with our site in the place of its default."""

    default_site = "portal.site.admin.PortalAdminSite"
