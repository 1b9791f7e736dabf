import django.db.models.deletion
from django.db import migrations, models

import portal.core.ids
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS


class Migration(migrations.Migration):
    dependencies = [
        ("knowledge", "0003_apps"),
        ("tenants", "0011_quota_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="knowledgebase",
            name="connection",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="knowledge.connection",
            ),
        ),
        migrations.CreateModel(
            name="DeletionReceipt",
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
                ("connection_id", models.UUIDField()),
                ("connection_name", models.CharField(max_length=80, verbose_name="connection")),
                ("kind", models.CharField(max_length=20, verbose_name="kind")),
                ("local_id", models.UUIDField(null=True)),
                ("label", models.CharField(max_length=255, verbose_name="name")),
                ("remote_id", models.CharField(max_length=64, verbose_name="id in Dify")),
                ("contained", models.JSONField(default=list)),
                ("deleted_at", models.DateTimeField(verbose_name="deleted")),
                ("verified_at", models.DateTimeField(null=True, verbose_name="verified")),
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
                "verbose_name": "deletion receipt",
                "verbose_name_plural": "deletion receipts",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="RemoteObject",
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
                ("kind", models.CharField(max_length=20, verbose_name="kind")),
                ("local_id", models.UUIDField(null=True)),
                ("parent_id", models.UUIDField(null=True)),
                ("label", models.CharField(max_length=255, verbose_name="name")),
                (
                    "remote_id",
                    models.CharField(blank=True, max_length=64, verbose_name="id in Dify"),
                ),
                ("batch", models.CharField(blank=True, max_length=64)),
                ("sent", models.JSONField(default=dict)),
                ("shown", models.JSONField(default=dict)),
                ("seen", models.JSONField(default=dict)),
                ("asking", models.JSONField(default=list)),
                ("gone", models.BooleanField(default=False)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waits to be sent"),
                            ("indexing", "Being indexed in Dify"),
                            ("in_step", "In step with Dify"),
                            ("conflict", "Changed in Dify: decide which version holds"),
                            ("failed", "Can't be sent"),
                        ],
                        default="waiting",
                        max_length=8,
                        verbose_name="state",
                    ),
                ),
                (
                    "decision",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("ours", "Keep the portal's version"),
                            ("theirs", "Take Dify's version"),
                        ],
                        max_length=6,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("next_at", models.DateTimeField(null=True)),
                ("waiting_since", models.DateTimeField(null=True)),
                ("error_code", models.CharField(blank=True, max_length=60)),
                ("error", models.CharField(blank=True, max_length=500)),
                ("synced_at", models.DateTimeField(null=True, verbose_name="in step since")),
                (
                    "connection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="knowledge.connection",
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
                "verbose_name": "object in Dify",
                "verbose_name_plural": "objects in Dify",
                "ordering": ["id"],
                "indexes": [
                    models.Index(
                        fields=["tenant", "kind", "local_id"], name="remote_object_of_local"
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "connection", "kind", "local_id"),
                        name="one_remote_object_a_local_one",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("remote_id", ""), _negated=True),
                        fields=("tenant", "connection", "kind", "remote_id"),
                        name="one_row_a_remote_object",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Sync",
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
                ("paused", models.BooleanField(default=False, verbose_name="paused")),
                ("due_at", models.DateTimeField()),
                ("fence", models.PositiveIntegerField(default=0)),
                ("lease_until", models.DateTimeField(null=True)),
                ("observe_at", models.DateTimeField()),
                ("observed_at", models.DateTimeField(null=True, verbose_name="Dify looked at")),
                ("failures", models.PositiveSmallIntegerField(default=0)),
                ("failing_since", models.DateTimeField(null=True)),
                ("error_code", models.CharField(blank=True, max_length=60)),
                ("error", models.CharField(blank=True, max_length=500)),
                (
                    "connection",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="knowledge.connection",
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
                "indexes": [models.Index(fields=["due_at"], name="sync_due")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "connection"), name="one_sync_a_connection"
                    )
                ],
            },
        ),
        CompositeForeignKey("knowledge_knowledgebase", "connection_id", to="knowledge_connection"),
        # Which are due, and who holds them, is found out and written across tenants.
        EnableTenantRLS(
            "knowledge_sync",
            gateway="SELECT (id, tenant_id, connection_id, paused, due_at, lease_until, fence), "
            "UPDATE (lease_until, fence)",
        ),
        EnableTenantRLS("knowledge_remoteobject"),
        EnableTenantRLS("knowledge_deletionreceipt", app="SELECT, INSERT"),
        CompositeForeignKey(
            "knowledge_sync", "connection_id", to="knowledge_connection", on_delete="CASCADE"
        ),
        CompositeForeignKey(
            "knowledge_remoteobject",
            "connection_id",
            to="knowledge_connection",
            on_delete="CASCADE",
        ),
    ]
