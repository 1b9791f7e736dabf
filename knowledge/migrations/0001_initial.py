import django.db.models.deletion
from django.db import migrations, models

import portal.core.ids
from audit.operations import GovernTable
from portal.core.tenancy.operations import EnableTenantRLS


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("tenants", "0011_quota_indexes"),
        ("audit", "0002_trail"),
    ]

    operations = [
        migrations.CreateModel(
            name="Connection",
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
                ("base_url", models.CharField(max_length=300, verbose_name="address")),
                ("workspace_id", models.UUIDField(verbose_name="workspace id")),
                (
                    "workspace_name",
                    models.CharField(blank=True, max_length=255, verbose_name="workspace"),
                ),
                ("data_key_version", models.PositiveIntegerField()),
                ("sealed", models.BinaryField()),
                (
                    "drift_policy",
                    models.CharField(
                        choices=[
                            ("ours", "The portal's version wins"),
                            ("theirs", "Dify's version wins"),
                            ("ask", "Ask each time"),
                        ],
                        default="ask",
                        max_length=8,
                        verbose_name="on drift",
                    ),
                ),
                ("shared_from", models.UUIDField(null=True)),
                (
                    "organisation",
                    models.CharField(blank=True, max_length=120, verbose_name="organisation"),
                ),
                (
                    "licence_reference",
                    models.CharField(blank=True, max_length=200, verbose_name="licence"),
                ),
                ("licence_confirmed_by", models.CharField(blank=True, max_length=254)),
                ("licence_confirmed_at", models.DateTimeField(null=True)),
                ("version", models.CharField(max_length=40, verbose_name="version")),
                ("capabilities", models.JSONField()),
                (
                    "health",
                    models.CharField(
                        choices=[("healthy", "Working"), ("failing", "Not working")],
                        max_length=8,
                        verbose_name="state",
                    ),
                ),
                ("problem_code", models.CharField(blank=True, max_length=60)),
                ("problem", models.CharField(blank=True, max_length=400)),
                ("since", models.DateTimeField(verbose_name="since")),
                ("checked_at", models.DateTimeField(verbose_name="checked")),
                ("check_at", models.DateTimeField()),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
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
                "verbose_name": "connection",
                "verbose_name_plural": "connections",
                "ordering": ["name"],
                "indexes": [models.Index(fields=["check_at"], name="connection_due")],
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "id"), name="connection_in_tenant"),
                    models.UniqueConstraint(
                        fields=("tenant", "name"), name="one_connection_a_name"
                    ),
                ],
            },
        ),
        # The gateway's role finds out which are due, and reads none of them.
        EnableTenantRLS(
            "knowledge_connection",
            gateway="SELECT (id, tenant_id, check_at), UPDATE (check_at)",
        ),
        GovernTable(
            "knowledge_connection",
            label="knowledge.connection",
            name="name",
            redact=["sealed"],
            # What checks find is told when it changes, by events of their own.
            ignore=[
                "health",
                "problem_code",
                "problem",
                "since",
                "checked_at",
                "check_at",
                "version",
                "workspace_name",
                "capabilities",
            ],
        ),
    ]
