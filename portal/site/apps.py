from django.contrib.admin.apps import AdminConfig


class PortalAdminConfig(AdminConfig):
    """Django's admin with our site in the place of its default."""

    default_site = "portal.site.admin.PortalAdminSite"

    def ready(self) -> None:
        import portal.celery  # noqa: F401  (makes it the current Celery app, of commands too)
        from audit.admin import on_key_holder
        from portal.core.pages import on_page_permission, on_refusal
        from portal.site.navigation import allowed_by_name
        from portal.site.refusals import in_words
        from tenants.admin.keys import holder_of

        on_page_permission(allowed_by_name)
        on_refusal(in_words)
        on_key_holder(holder_of)
        super().ready()
