import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import portal.core.ids
from audit.operations import GovernTable
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS


class Migration(migrations.Migration):
    dependencies = [
        ("knowledge", "0006_dify_apps"),
        ("tenants", "0011_quota_indexes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Trigger",
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
                ("name", models.CharField(max_length=80, verbose_name="name")),
                (
                    "kind",
                    models.CharField(
                        choices=[("event", "Events"), ("schedule", "A schedule")],
                        max_length=8,
                        verbose_name="started by",
                    ),
                ),
                ("enabled", models.BooleanField(default=True, verbose_name="enabled")),
                ("stream", models.CharField(blank=True, max_length=60, verbose_name="stream")),
                ("rules", models.JSONField(default=list, verbose_name="rules")),
                ("threshold", models.FloatField(default=1.0, verbose_name="threshold")),
                (
                    "cooldown_minutes",
                    models.PositiveIntegerField(default=0, verbose_name="pause in minutes"),
                ),
                ("schedule", models.CharField(blank=True, max_length=100, verbose_name="schedule")),
                ("inputs", models.JSONField(default=dict, verbose_name="inputs")),
                ("alert_when", models.JSONField(null=True, verbose_name="alert when")),
                ("receiver", models.CharField(blank=True, max_length=280, verbose_name="receiver")),
                ("data_key_version", models.PositiveIntegerField(default=0)),
                ("sealed_url", models.BinaryField(null=True)),
                (
                    "keep_days",
                    models.PositiveSmallIntegerField(default=30, verbose_name="kept for days"),
                ),
                ("next_at", models.DateTimeField(null=True, verbose_name="next time")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
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
                    "app",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="triggers",
                        to="knowledge.app",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
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
                "verbose_name": "trigger",
                "verbose_name_plural": "triggers",
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="TriggerRun",
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
                ("cause", models.CharField(max_length=60)),
                ("subject", models.BinaryField(default=b"")),
                ("app_version", models.PositiveIntegerField(default=0, verbose_name="version")),
                (
                    "state",
                    models.SmallIntegerField(
                        choices=[
                            (0, "Waiting to start"),
                            (1, "Running"),
                            (2, "Succeeded"),
                            (3, "Failed"),
                        ],
                        default=0,
                        verbose_name="state",
                    ),
                ),
                ("score", models.FloatField(default=0.0, verbose_name="score")),
                ("alert", models.BooleanField(default=False, verbose_name="alert")),
                ("job_id", models.UUIDField(null=True)),
                ("wake_at", models.DateTimeField(null=True)),
                ("waiting_for", models.CharField(blank=True, max_length=500)),
                ("error", models.CharField(blank=True, max_length=500, verbose_name="error")),
                ("data_key_version", models.PositiveIntegerField()),
                ("sealed", models.BinaryField(null=True)),
                ("created_at", models.DateTimeField(verbose_name="started")),
                ("finished_at", models.DateTimeField(null=True, verbose_name="finished")),
                ("expires_at", models.DateTimeField()),
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
                    "trigger",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="runs",
                        to="knowledge.trigger",
                    ),
                ),
            ],
            options={
                "verbose_name": "run",
                "verbose_name_plural": "runs",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="StreamEvent",
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
                ("stream", models.CharField(max_length=60, verbose_name="stream")),
                ("source_id", models.CharField(max_length=140)),
                ("subject", models.BinaryField()),
                ("at", models.DateTimeField(verbose_name="time")),
                ("data_key_version", models.PositiveIntegerField()),
                ("sealed", models.BinaryField()),
                ("size", models.PositiveIntegerField()),
                ("wake_at", models.DateTimeField(null=True)),
                ("received_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
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
                "ordering": ["-id"],
                "indexes": [
                    models.Index(
                        fields=["tenant", "stream", "subject", "at"], name="stream_event_subject"
                    ),
                    models.Index(fields=["tenant", "stream", "at"], name="stream_event_window"),
                    models.Index(
                        condition=models.Q(("wake_at__isnull", False)),
                        fields=["wake_at"],
                        name="stream_event_due",
                    ),
                    models.Index(fields=["expires_at"], name="stream_event_expiry"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "id"), name="stream_event_in_tenant"),
                    models.UniqueConstraint(
                        fields=("tenant", "stream", "source_id"),
                        name="one_stream_event_a_source_id",
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="trigger",
            index=models.Index(fields=["tenant", "stream"], name="trigger_of_stream"),
        ),
        migrations.AddIndex(
            model_name="trigger",
            index=models.Index(fields=["tenant", "app"], name="trigger_of_app"),
        ),
        migrations.AddIndex(
            model_name="trigger",
            index=models.Index(
                condition=models.Q(("next_at__isnull", False)),
                fields=["next_at"],
                name="trigger_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="trigger",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="trigger_in_tenant"),
        ),
        migrations.AddConstraint(
            model_name="trigger",
            constraint=models.UniqueConstraint(
                fields=("tenant", "name"), name="one_trigger_a_name"
            ),
        ),
        migrations.AddConstraint(
            model_name="trigger",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("kind", "event"), ("schedule", ""), models.Q(("stream", ""), _negated=True)
                    ),
                    models.Q(
                        ("kind", "schedule"),
                        ("stream", ""),
                        models.Q(("schedule", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="trigger_has_what_starts_it",
            ),
        ),
        migrations.AddIndex(
            model_name="triggerrun",
            index=models.Index(fields=["tenant", "trigger", "subject"], name="trigger_run_subject"),
        ),
        migrations.AddIndex(
            model_name="triggerrun",
            index=models.Index(
                condition=models.Q(("wake_at__isnull", False)),
                fields=["wake_at"],
                name="trigger_run_due",
            ),
        ),
        migrations.AddIndex(
            model_name="triggerrun",
            index=models.Index(fields=["expires_at"], name="trigger_run_expiry"),
        ),
        migrations.AddConstraint(
            model_name="triggerrun",
            constraint=models.UniqueConstraint(
                fields=("tenant", "trigger", "cause"), name="one_trigger_run_a_cause"
            ),
        ),
        EnableTenantRLS("knowledge_trigger", gateway="SELECT (tenant_id, id, next_at)"),
        EnableTenantRLS(
            "knowledge_streamevent",
            gateway="SELECT (tenant_id, id, wake_at, expires_at), DELETE",
        ),
        # What is swept of a run is what it held, and in the end the row.
        EnableTenantRLS(
            "knowledge_triggerrun",
            gateway="SELECT (tenant_id, id, wake_at, created_at, expires_at, sealed), "
            "UPDATE (sealed, expires_at), DELETE",
        ),
        CompositeForeignKey("knowledge_trigger", "app_id", to="knowledge_app", on_delete="CASCADE"),
        CompositeForeignKey("knowledge_trigger", "api_key_id", to="tenants_apikey"),
        CompositeForeignKey(
            "knowledge_triggerrun", "trigger_id", to="knowledge_trigger", on_delete="CASCADE"
        ),
        GovernTable(
            "knowledge_trigger",
            label="knowledge.trigger",
            name="name",
            redact=["sealed_url"],
            ignore=["next_at"],
        ),
    ]
