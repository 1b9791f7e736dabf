import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import portal.core.ids
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS


class Migration(migrations.Migration):
    dependencies = [
        ("knowledge", "0007_triggers"),
        ("tenants", "0011_quota_indexes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Evaluation",
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
                ("app_version", models.PositiveIntegerField(verbose_name="version")),
                ("scenario", models.CharField(max_length=60, verbose_name="scenario")),
                ("model", models.CharField(max_length=120, verbose_name="model")),
                ("cases", models.PositiveIntegerField(verbose_name="cases")),
                ("scores", models.JSONField()),
                ("failures", models.JSONField()),
                ("seconds", models.FloatField()),
                ("created_at", models.DateTimeField(verbose_name="time")),
                (
                    "app",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="evaluations",
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
                "verbose_name": "evaluation",
                "verbose_name_plural": "evaluations",
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["tenant", "app", "id"], name="evaluation_of_app")],
            },
        ),
        # An evaluation never changes; with its app the database deletes it.
        EnableTenantRLS("knowledge_evaluation", app="SELECT, INSERT", platform="SELECT, DELETE"),
        CompositeForeignKey(
            "knowledge_evaluation", "app_id", to="knowledge_app", on_delete="CASCADE"
        ),
    ]
