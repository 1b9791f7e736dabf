from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# Administrators tell workers what to be, and delete deployments that never served.
DELETED = ("inference_worker", "inference_deploymentclock", "inference_queueforecast")
ORDERS = "(desired_state, load_generation)"


class Migration(migrations.Migration):
    dependencies = [("inference", "0014_worker_desired_state")]

    operations = [
        RoleSQL(
            [
                f"GRANT UPDATE {ORDERS} ON inference_worker TO {{platform}}",
                *(f"GRANT DELETE ON {table} TO {{platform}}" for table in DELETED),
            ],
            [
                *(f"REVOKE DELETE ON {table} FROM {{platform}}" for table in DELETED),
                f"REVOKE UPDATE {ORDERS} ON inference_worker FROM {{platform}}",
            ],
        )
    ]
