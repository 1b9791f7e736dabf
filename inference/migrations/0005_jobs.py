import django.db.models.deletion
from django.db import migrations, models

from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, Grant, RoleSQL

PRIORITIES = [(0, "Interactive"), (1, "Normal"), (2, "Batch")]

SHARES = (
    "ALTER TABLE inference_fairshare ADD COLUMN priority smallint NOT NULL DEFAULT 0, "
    "DROP CONSTRAINT inference_fairshare_pkey, "
    "ADD CONSTRAINT inference_fairshare_pkey PRIMARY KEY (tenant_id, deployment_id, priority)",
    # The owner is bound by row-level security too, and no policy names it.
    "ALTER TABLE inference_fairshare NO FORCE ROW LEVEL SECURITY",
    "DELETE FROM inference_fairshare WHERE priority <> 0",
    "ALTER TABLE inference_fairshare FORCE ROW LEVEL SECURITY",
    "ALTER TABLE inference_fairshare DROP CONSTRAINT inference_fairshare_pkey, "
    "ADD CONSTRAINT inference_fairshare_pkey PRIMARY KEY (tenant_id, deployment_id), "
    "DROP COLUMN priority",
)

# What admission moves; a quota's limits and its id are not among them.
METRICS = [f"{m}_{w}_{k}" for m in ("tokens", "cost") for w in ("minute", "day", "month", "total")
           for k in ("used", "held")]  # fmt: skip
COUNTERS = ", ".join(
    [
        "minute_start",
        "day_start",
        "month_start",
        "active",
        *METRICS,
        *(f"requests_{w}_used" for w in ("minute", "day", "month", "total")),
    ]
)

OWN = "tenant_id = (SELECT current_tenant())"

# The control plane puts prompts in and never sees one again. Of answers it reads those that a
# business system asked to keep, once they are there.
PAYLOADS = (
    [
        "DROP POLICY own_tenant ON inference_jobpayload",
        f"CREATE POLICY own_tenant_insert ON inference_jobpayload FOR INSERT TO {{app}} "
        f"WITH CHECK ({OWN})",
        f"CREATE POLICY own_tenant_results ON inference_jobpayload FOR SELECT TO {{app}} "
        f"USING ({OWN} AND result_seconds IS NOT NULL AND answer IS NOT NULL)",
        "GRANT INSERT ON inference_jobpayload TO {app}",
        "GRANT SELECT (job_id, tenant_id, data_key_version, answer, delete_after, result_seconds) "
        "ON inference_jobpayload TO {app}",
    ],
    [
        "REVOKE SELECT (job_id, tenant_id, data_key_version, answer, delete_after, "
        "result_seconds) ON inference_jobpayload FROM {app}",
        "REVOKE INSERT ON inference_jobpayload FROM {app}",
        "DROP POLICY own_tenant_results ON inference_jobpayload",
        "DROP POLICY own_tenant_insert ON inference_jobpayload",
        f"CREATE POLICY own_tenant ON inference_jobpayload TO {{app}} USING ({OWN}) "
        f"WITH CHECK ({OWN})",
    ],
)

GRANTS = (
    [
        f"GRANT UPDATE ({COUNTERS}) ON tenants_quotawindow TO {{app}}",
        "GRANT INSERT, UPDATE (cancel_requested_at) ON inference_job TO {app}",
        "GRANT SELECT, INSERT, UPDATE ON inference_fairshare TO {app}",
    ],
    [
        f"REVOKE UPDATE ({COUNTERS}) ON tenants_quotawindow FROM {{app}}",
        "REVOKE INSERT, UPDATE (cancel_requested_at) ON inference_job FROM {app}",
        "REVOKE SELECT, INSERT, UPDATE ON inference_fairshare FROM {app}",
    ],
)


class Migration(migrations.Migration):
    dependencies = [("inference", "0004_queue_forecast"), ("tenants", "0006_usage")]

    operations = [
        migrations.AddField(
            "job",
            "priority",
            models.SmallIntegerField("priority", choices=PRIORITIES, default=0, db_default=0),
        ),
        migrations.AddField("jobpayload", "result_seconds", models.IntegerField(null=True)),
        migrations.AddIndex(
            "jobpayload",
            models.Index(
                fields=["delete_after"],
                condition=models.Q(delete_after__isnull=False),
                name="jobpayload_expiry",
            ),
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[RoleSQL(SHARES[0], SHARES[1:])],
            state_operations=[
                migrations.AddField(
                    "fairshare",
                    "priority",
                    models.SmallIntegerField(default=0, db_default=0),
                ),
                migrations.AlterField(
                    "fairshare",
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "deployment_id",
                        "priority",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
            ],
        ),
        migrations.AlterField(
            "queueforecast",
            "shares",
            models.JSONField(help_text="Virtual time and weight of each flow ahead of the head."),
        ),
        migrations.CreateModel(
            "IdempotencyKey",
            [
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "api_key_id",
                        "key",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("key", models.CharField(max_length=255)),
                ("pepper_version", models.SmallIntegerField()),
                ("body_hmac", models.BinaryField()),
                ("expires_at", models.DateTimeField()),
                (
                    "api_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.apikey",
                    ),
                ),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="inference.job",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["expires_at"], name="idempotency_expiry")],
            },
        ),
        EnableTenantRLS(
            "inference_idempotencykey",
            app="SELECT, INSERT, DELETE",
            platform="SELECT",
            gateway="SELECT, DELETE",
        ),
        CompositeForeignKey(
            "inference_idempotencykey", "api_key_id", to="tenants_apikey", on_delete="CASCADE"
        ),
        CompositeForeignKey(
            "inference_idempotencykey", "job_id", to="inference_job", on_delete="CASCADE"
        ),
        Grant("inference_deploymentclock", {"app": "SELECT"}),
        RoleSQL(*PAYLOADS),
        RoleSQL(*GRANTS),
        RoleSQL(
            "ALTER TABLE inference_job ALTER COLUMN priority SET STATISTICS 10",
            "ALTER TABLE inference_job ALTER COLUMN priority SET STATISTICS DEFAULT",
        ),
    ]
