from django.db import migrations, models

from portal.core.tenancy.operations import RoleSQL

COLUMNS = (
    "id",
    "tenant_id",
    "job_id",
    "api_key_id",
    "user_id",
    "model_id",
    "sku",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "currency",
    "measure",
    "admitted_at",
    "recorded_at",
)


def _set(target: str) -> str:
    columns = ", ".join(f"ALTER COLUMN {name} SET STATISTICS {target}" for name in COLUMNS)
    return f"ALTER TABLE tenants_ledgerentry {columns}"


class Migration(migrations.Migration):
    dependencies = [("tenants", "0002_isolation")]

    operations = [
        # A small sample is enough: see the audit trail's migration of the same name.
        RoleSQL(_set("10"), _set("DEFAULT")),
        migrations.RemoveIndex(model_name="ledgerentry", name="ledger_by_time"),
        migrations.AddIndex(
            model_name="ledgerentry",
            index=models.Index(fields=["tenant_id", "recorded_at"], name="ledger_by_time"),
        ),
    ]
