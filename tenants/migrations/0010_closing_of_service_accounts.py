from django.db import migrations

from portal.core.tenancy.operations import RoleSQL


class Migration(migrations.Migration):
    dependencies = [("tenants", "0009_closing")]

    operations = [
        RoleSQL(
            "GRANT DELETE ON tenants_serviceaccount TO {platform}",
            "REVOKE DELETE ON tenants_serviceaccount FROM {platform}",
        )
    ]
