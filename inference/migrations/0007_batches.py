import django.db.models.deletion
import django.db.models.expressions
from django.conf import settings
from django.db import migrations, models

import portal.core.ids
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, RoleSQL

# Ciphertext does not compress: PostgreSQL need not try.
STORAGE = "ALTER TABLE inference_filechunk ALTER COLUMN content SET STORAGE EXTERNAL"


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0006_webhooks"),
        ("tenants", "0006_usage"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="File",
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
                ("filename", models.CharField(blank=True, max_length=255, verbose_name="name")),
                (
                    "purpose",
                    models.CharField(
                        choices=[
                            ("batch", "Input of a batch"),
                            ("batch_output", "Results of a batch"),
                        ],
                        max_length=16,
                        verbose_name="purpose",
                    ),
                ),
                (
                    "state",
                    models.SmallIntegerField(
                        choices=[(0, "Incomplete"), (1, "Ready"), (2, "Deleted")],
                        default=0,
                        verbose_name="state",
                    ),
                ),
                ("size", models.BigIntegerField(default=0, verbose_name="bytes")),
                ("chunks", models.IntegerField(default=0)),
                ("data_key_version", models.PositiveIntegerField()),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("expires_at", models.DateTimeField(null=True, verbose_name="expires")),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "api_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.apikey",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="files",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "file",
                "verbose_name_plural": "files",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Batch",
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
                ("endpoint", models.CharField(max_length=40, verbose_name="endpoint")),
                ("model", models.CharField(blank=True, max_length=256, verbose_name="model")),
                ("metadata", models.JSONField(null=True, verbose_name="metadata")),
                (
                    "output_seconds",
                    models.IntegerField(
                        help_text="How long its results are kept, where the caller says so.",
                        null=True,
                    ),
                ),
                (
                    "state",
                    models.SmallIntegerField(
                        choices=[
                            (0, "Validating"),
                            (1, "In progress"),
                            (2, "Finalizing"),
                            (3, "Cancelling"),
                            (4, "Completed"),
                            (5, "Failed"),
                            (6, "Expired"),
                            (7, "Cancelled"),
                        ],
                        default=0,
                        verbose_name="state",
                    ),
                ),
                (
                    "outcome",
                    models.SmallIntegerField(
                        help_text="The end that it is on its way to, once that is certain.",
                        null=True,
                    ),
                ),
                ("errors", models.JSONField(default=list, verbose_name="errors")),
                ("total", models.IntegerField(default=0, verbose_name="requests")),
                ("completed", models.IntegerField(default=0, verbose_name="completed")),
                ("failed", models.IntegerField(default=0, verbose_name="failed")),
                ("prompt_tokens", models.BigIntegerField(default=0, verbose_name="prompt tokens")),
                (
                    "completion_tokens",
                    models.BigIntegerField(default=0, verbose_name="completion tokens"),
                ),
                ("lines_read", models.IntegerField(default=0)),
                ("bytes_read", models.BigIntegerField(default=0)),
                ("fed_through", models.IntegerField(default=0)),
                (
                    "waiting_for",
                    models.CharField(
                        blank=True,
                        help_text="Why nothing more is admitted now.",
                        max_length=500,
                        verbose_name="waits for",
                    ),
                ),
                (
                    "feed_at",
                    models.DateTimeField(help_text="When that is to be tried again.", null=True),
                ),
                (
                    "wake_at",
                    models.DateTimeField(help_text="When there is something to do for it again."),
                ),
                ("created_at", models.DateTimeField(verbose_name="created")),
                ("expires_at", models.DateTimeField(verbose_name="expires")),
                ("in_progress_at", models.DateTimeField(null=True)),
                ("finalizing_at", models.DateTimeField(null=True)),
                ("cancelling_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True, verbose_name="ended")),
                (
                    "api_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.apikey",
                        verbose_name="API key",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="batches",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="user",
                    ),
                ),
                (
                    "error_file",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="inference.file",
                    ),
                ),
                (
                    "input_file",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="inference.file",
                    ),
                ),
                (
                    "output_file",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="inference.file",
                    ),
                ),
            ],
            options={
                "verbose_name": "batch",
                "verbose_name_plural": "batches",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="FileChunk",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "file_id",
                        "number",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("number", models.IntegerField(help_text="From 0.")),
                ("content", models.BinaryField()),
                (
                    "file",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="inference.file",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="BatchLine",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "batch_id",
                        "number",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("number", models.IntegerField(help_text="Line of the input file, from 1.")),
                ("custom_id", models.BinaryField(help_text="Encrypted.")),
                ("custom_id_hmac", models.BinaryField(help_text="Two of one batch must differ.")),
                ("start", models.BigIntegerField(help_text="Its first byte in the input file.")),
                ("length", models.IntegerField(help_text="Bytes.")),
                (
                    "state",
                    models.SmallIntegerField(
                        choices=[(0, "Waiting"), (1, "Running"), (2, "Done")], default=0
                    ),
                ),
                ("job_id", models.UUIDField(null=True)),
                (
                    "batch",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="inference.batch",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("state", 1)),
                        fields=["tenant", "batch", "number"],
                        name="batch_lines_running",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "batch", "custom_id_hmac"), name="one_line_a_custom_id"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", 1), _negated=True),
                            ("job_id__isnull", False),
                            _connector="OR",
                        ),
                        name="running_line_has_job",
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="file",
            index=models.Index(
                condition=models.Q(("state", 2), _negated=True),
                fields=["expires_at"],
                name="file_expiry",
            ),
        ),
        migrations.AddConstraint(
            model_name="file",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="file_in_tenant"),
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(
                condition=models.Q(("state__in", (0, 1, 2, 3))),
                fields=["wake_at"],
                name="batch_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="batch_in_tenant"),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("ended_at__isnull", True), ("state__in", (0, 1, 2, 3))),
                    models.Q(
                        models.Q(("state__in", (0, 1, 2, 3)), _negated=True),
                        ("ended_at__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="batch_ended_iff_terminal",
            ),
        ),
        migrations.AddConstraint(
            model_name="batch",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "total__gte",
                        django.db.models.expressions.CombinedExpression(
                            models.F("completed"), "+", models.F("failed")
                        ),
                    )
                ),
                name="batch_counts_within_total",
            ),
        ),
        EnableTenantRLS(
            "inference_file",
            app="SELECT, INSERT, UPDATE",
            platform="SELECT",
            gateway="SELECT, INSERT, UPDATE, DELETE",
        ),
        EnableTenantRLS(
            "inference_filechunk",
            app="SELECT, INSERT",
            platform="SELECT",
            gateway="SELECT, INSERT, DELETE",
        ),
        EnableTenantRLS(
            "inference_batch",
            app="SELECT, UPDATE",
            platform="SELECT",
            gateway="SELECT, INSERT, UPDATE",
        ),
        EnableTenantRLS(
            "inference_batchline", app="SELECT, INSERT, UPDATE, DELETE", platform="SELECT"
        ),
        CompositeForeignKey("inference_file", "api_key_id", to="tenants_apikey"),
        CompositeForeignKey(
            "inference_filechunk", "file_id", to="inference_file", on_delete="CASCADE"
        ),
        CompositeForeignKey("inference_batch", "api_key_id", to="tenants_apikey"),
        CompositeForeignKey("inference_batch", "input_file_id", to="inference_file"),
        CompositeForeignKey("inference_batch", "output_file_id", to="inference_file"),
        CompositeForeignKey("inference_batch", "error_file_id", to="inference_file"),
        CompositeForeignKey(
            "inference_batchline", "batch_id", to="inference_batch", on_delete="CASCADE"
        ),
        RoleSQL(STORAGE, []),
    ]
