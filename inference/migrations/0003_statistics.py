from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# No condition names these columns: see the audit trail's migration of the same name.
PLAIN = {
    "inference_job": (
        "parameters",
        "request_id",
        "gateway",
        "quota_ids",
        "reserved_tokens",
        "reserved_cost",
        "prompt_price",
        "completion_price",
        "currency",
        "worker",
        "finish_reason",
        "error_message",
    ),
    "inference_jobpayload": ("prompt", "answer"),
}


def _set(target: str) -> list[str]:
    return [
        f"ALTER TABLE {table} "
        + ", ".join(f"ALTER COLUMN {name} SET STATISTICS {target}" for name in names)
        for table, names in PLAIN.items()
    ]


class Migration(migrations.Migration):
    dependencies = [("inference", "0002_isolation")]

    operations = [RoleSQL(_set("0"), _set("DEFAULT"))]
