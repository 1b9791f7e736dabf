from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# No condition names these columns; of the others a small sample is enough. See the audit trail's
# migration of the same name.
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
FEW = {
    "inference_job": (
        "id",
        "tenant_id",
        "deployment_id",
        "model_id",
        "api_key_id",
        "user_id",
        "sku",
        "kind",
        "state",
        "stream",
        "prompt_tokens",
        "start_tag",
        "attempts",
        "fence",
        "lease_until",
        "cancel_requested_at",
        "admitted_at",
        "deadline",
        "claimed_at",
        "first_token_at",
        "finished_at",
        "watermark",
        "error_code",
    ),
    "inference_jobpayload": ("job_id", "tenant_id", "data_key_version", "delete_after"),
}


def _set(columns: dict[str, tuple[str, ...]], target: str) -> list[str]:
    return [
        f"ALTER TABLE {table} "
        + ", ".join(f"ALTER COLUMN {name} SET STATISTICS {target}" for name in names)
        for table, names in columns.items()
    ]


class Migration(migrations.Migration):
    dependencies = [("inference", "0002_isolation")]

    operations = [
        RoleSQL(
            [*_set(PLAIN, "0"), *_set(FEW, "10")],
            [*_set(PLAIN, "DEFAULT"), *_set(FEW, "DEFAULT")],
        )
    ]
