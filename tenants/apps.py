from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class TenantsConfig(AppConfig):
    name = "tenants"
    verbose_name = _("Tenants")

    def ready(self) -> None:
        from portal.core.tenancy.guard import guard_table
        from tenants.closing import parts
        from tenants.identity import recording

        # Its rows are tenants themselves, so no tenant_id names it.
        guard_table("tenants_tenant")
        recording.connect()
        parts.register()
