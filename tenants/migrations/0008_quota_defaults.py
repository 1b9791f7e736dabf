import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

import portal.core.ids
from audit.operations import GovernTable
from portal.core.tenancy.operations import EnableTenantRLS

LIMITS = {
    "tokens_minute": "tokens a minute",
    "tokens_day": "tokens a day",
    "tokens_month": "tokens a month",
    "tokens_total": "tokens in total",
    "requests_minute": "requests a minute",
    "requests_day": "requests a day",
    "requests_month": "requests a month",
    "requests_total": "requests in total",
    "cost_minute": "cost a minute",
    "cost_day": "cost a day",
    "cost_month": "cost a month",
    "cost_total": "cost in total",
    "concurrency": "generations at once",
}


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0007_service_accounts"),
    ]

    operations = [
        migrations.AddField(
            model_name="quota",
            name="inherited",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=20),
                db_default=[],
                default=list,
                size=None,
            ),
        ),
        migrations.CreateModel(
            name="QuotaDefault",
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
                *(
                    (name, models.BigIntegerField(blank=True, null=True, verbose_name=words))
                    for name, words in LIMITS.items()
                ),
                (
                    "applies_to",
                    models.CharField(
                        choices=[
                            ("api_key", "Each API key"),
                            ("user", "Each user and service account"),
                        ],
                        max_length=8,
                        verbose_name="for",
                    ),
                ),
                ("model_id", models.UUIDField(blank=True, null=True, verbose_name="model")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="quota_defaults",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "default quota",
                "verbose_name_plural": "default quotas",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "applies_to", "model_id"),
                        name="one_quota_default_a_scope",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
        EnableTenantRLS("tenants_quotadefault"),
        GovernTable("tenants_quotadefault", label="tenants.quotadefault", name="applies_to"),
    ]
