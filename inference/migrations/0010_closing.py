from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# What the deletion of a tenant erases, and nobody could delete before.
ERASED = ("inference_job", "inference_fairshare")


class Migration(migrations.Migration):
    dependencies = [("inference", "0009_worker_counts")]

    operations = [
        RoleSQL(
            [f"GRANT DELETE ON {table} TO {{platform}}" for table in ERASED],
            [f"REVOKE DELETE ON {table} FROM {{platform}}" for table in ERASED],
        )
    ]
