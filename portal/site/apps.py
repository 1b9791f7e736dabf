from django.contrib.admin.apps import AdminConfig


class PortalAdminConfig(AdminConfig):
    """Django's admin with our site in the place of its default."""

    default_site = "portal.site.admin.PortalAdminSite"

    def ready(self) -> None:
        from portal.core.pages import on_page_permission, on_refusal
        from portal.site.navigation import allowed_by_name
        from portal.site.refusals import in_words

        on_page_permission(allowed_by_name)
        on_refusal(in_words)
        super().ready()
