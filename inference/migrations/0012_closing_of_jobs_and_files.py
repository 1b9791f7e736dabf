from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# What else the deletion of a tenant erases, and the platform could not delete before.
ERASED = (
    "inference_idempotencykey",
    "inference_webhooksecret",
    "inference_webhookdelivery",
    "inference_webhookattempt",
    "inference_file",
    "inference_filechunk",
    "inference_batch",
    "inference_batchline",
)


class Migration(migrations.Migration):
    dependencies = [("inference", "0011_routes_in_tenants")]

    operations = [
        RoleSQL(
            [f"GRANT DELETE ON {table} TO {{platform}}" for table in ERASED],
            [f"REVOKE DELETE ON {table} FROM {{platform}}" for table in ERASED],
        )
    ]
