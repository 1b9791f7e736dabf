import django.db.models.deletion
from django.db import migrations, models

import portal.core.ids
from audit.operations import GovernTable
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, RoleSQL

# In the transaction that ends the job, whoever ends it. What a gateway waits for has no callback:
# the condition tells it apart, before any function is called.
DUE = [
    """
CREATE FUNCTION inference_webhook_due() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    UPDATE public.inference_webhookdelivery SET state = 1, due_at = clock_timestamp()
     WHERE tenant_id = NEW.tenant_id AND job_id = NEW.id AND state + 0 = 0;
    RETURN NULL;
END $$
""",
    "REVOKE ALL ON FUNCTION inference_webhook_due() FROM PUBLIC",
    """
CREATE TRIGGER webhook_due AFTER UPDATE OF state ON inference_job FOR EACH ROW
  WHEN (NEW.state >= 2 AND OLD.state < 2 AND NEW.gateway = '')
  EXECUTE FUNCTION inference_webhook_due()
""",
]

# A delivery moves through a handful of states: the partial index of what is pending stays short.
STORAGE = (
    "ALTER TABLE inference_webhookdelivery "
    "SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02)"
)


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0005_jobs"),
        ("tenants", "0006_usage"),
        ("audit", "0002_trail"),
    ]

    operations = [
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.core.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("origin", models.CharField(max_length=280, verbose_name="receiver")),
                ("data_key_version", models.PositiveIntegerField()),
                ("sealed_url", models.BinaryField()),
                (
                    "state",
                    models.SmallIntegerField(
                        choices=[
                            (0, "Waiting for the job"),
                            (1, "Pending"),
                            (2, "Delivered"),
                            (3, "Failed"),
                        ],
                        default=0,
                        verbose_name="state",
                    ),
                ),
                ("attempts", models.IntegerField(default=0, verbose_name="attempts")),
                ("tries", models.IntegerField(default=0)),
                ("due_at", models.DateTimeField(null=True, verbose_name="next try")),
                ("lease_until", models.DateTimeField(null=True)),
                ("last_attempt_at", models.DateTimeField(null=True, verbose_name="last attempt")),
                ("last_status", models.IntegerField(null=True, verbose_name="HTTP status")),
                ("last_error", models.CharField(blank=True, max_length=200, verbose_name="error")),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("finished_at", models.DateTimeField(null=True, verbose_name="finished")),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="webhooks",
                        to="inference.job",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "webhook delivery",
                "verbose_name_plural": "webhook deliveries",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="WebhookAttempt",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.core.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("number", models.IntegerField(verbose_name="attempt")),
                ("sent_at", models.DateTimeField(verbose_name="sent")),
                ("milliseconds", models.IntegerField(verbose_name="took")),
                ("status", models.IntegerField(null=True, verbose_name="HTTP status")),
                ("error", models.CharField(blank=True, max_length=200, verbose_name="error")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "delivery",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="log",
                        to="inference.webhookdelivery",
                    ),
                ),
            ],
            options={
                "ordering": ["-number"],
            },
        ),
        migrations.CreateModel(
            name="WebhookSecret",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.core.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("generation", models.PositiveIntegerField(verbose_name="generation")),
                ("data_key_version", models.PositiveIntegerField()),
                ("sealed", models.BinaryField()),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                ("valid_until", models.DateTimeField(null=True, verbose_name="signs until")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "webhook signing secret",
                "verbose_name_plural": "webhook signing secrets",
                "ordering": ["-generation"],
            },
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(
                condition=models.Q(("state", 1)), fields=["tenant", "due_at"], name="webhook_due"
            ),
        ),
        migrations.AddConstraint(
            model_name="webhookdelivery",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="webhook_in_tenant"),
        ),
        migrations.AddConstraint(
            model_name="webhookdelivery",
            constraint=models.UniqueConstraint(fields=("tenant", "job"), name="one_webhook_a_job"),
        ),
        migrations.AddConstraint(
            model_name="webhookdelivery",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("due_at__isnull", False), ("state", 1)),
                    models.Q(models.Q(("state", 1), _negated=True), ("due_at__isnull", True)),
                    _connector="OR",
                ),
                name="webhook_due_iff_pending",
            ),
        ),
        migrations.AddConstraint(
            model_name="webhookattempt",
            constraint=models.UniqueConstraint(
                fields=("tenant", "delivery", "number"), name="one_webhook_attempt_a_number"
            ),
        ),
        migrations.AddConstraint(
            model_name="webhooksecret",
            constraint=models.UniqueConstraint(
                fields=("tenant", "generation"), name="one_webhook_secret_a_generation"
            ),
        ),
        migrations.AddConstraint(
            model_name="webhooksecret",
            constraint=models.UniqueConstraint(
                condition=models.Q(("valid_until__isnull", True)),
                fields=("tenant",),
                name="one_present_webhook_secret",
            ),
        ),
        EnableTenantRLS(
            "inference_webhooksecret",
            app="SELECT, INSERT, DELETE, UPDATE (valid_until)",
            platform="SELECT",
            gateway="SELECT",
        ),
        EnableTenantRLS(
            "inference_webhookdelivery",
            app="SELECT, INSERT, UPDATE (state, tries, due_at, finished_at)",
            platform="SELECT",
            gateway="SELECT, UPDATE",
        ),
        EnableTenantRLS(
            "inference_webhookattempt", app="SELECT", platform="SELECT", gateway="INSERT"
        ),
        CompositeForeignKey(
            "inference_webhookdelivery", "job_id", to="inference_job", on_delete="CASCADE"
        ),
        CompositeForeignKey(
            "inference_webhookattempt",
            "delivery_id",
            to="inference_webhookdelivery",
            on_delete="CASCADE",
        ),
        GovernTable(
            "inference_webhooksecret",
            label="inference.webhooksecret",
            name="generation",
            redact=["sealed"],
        ),
        RoleSQL(STORAGE, []),
        RoleSQL(
            DUE,
            [
                "DROP TRIGGER webhook_due ON inference_job",
                "DROP FUNCTION inference_webhook_due()",
            ],
        ),
    ]
