from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AuditConfig(AppConfig):
    name = "audit"
    verbose_name = _("Audit")

    def ready(self) -> None:
        from audit import services
        from portal.core.tenancy.guard import guard_table
        from portal.core.tenancy.scopes import on_platform_scope

        guard_table("audit_logentry")
        on_platform_scope(services.record_platform_scope)
