import django.db.models.deletion
from django.db import migrations, models

import portal.core.ids
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0004_key_generations"),
    ]

    operations = [
        migrations.AlterField(
            model_name="quotawindow",
            name="quota",
            field=models.OneToOneField(
                db_constraint=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                primary_key=True,
                related_name="window",
                serialize=False,
                to="tenants.quota",
            ),
        ),
        migrations.CreateModel(
            name="QuotaWarning",
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
                ("limit_name", models.CharField(max_length=20)),
                ("window_start", models.DateTimeField()),
                ("level", models.SmallIntegerField()),
                ("maximum", models.BigIntegerField()),
                ("taken", models.BigIntegerField()),
                ("warned_at", models.DateTimeField()),
                (
                    "quota",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="warnings",
                        to="tenants.quota",
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
                "indexes": [models.Index(fields=["warned_at"], name="quota_warning_by_time")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "quota", "limit_name", "window_start", "level"),
                        name="one_warning_a_level",
                    )
                ],
            },
        ),
        EnableTenantRLS(
            "tenants_quotawarning",
            app="SELECT",
            platform="SELECT",
            gateway="SELECT, INSERT, DELETE",
        ),
        CompositeForeignKey(
            "tenants_quotawarning", "quota_id", to="tenants_quota", on_delete="CASCADE"
        ),
    ]
