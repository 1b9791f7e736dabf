import django.db.models.deletion
from django.conf import settings
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Quotas are read by every admission: an index is made beside its work.
    atomic = False

    dependencies = [("tenants", "0010_closing_of_service_accounts")]

    operations = [
        AddIndexConcurrently(
            model_name="quota",
            index=models.Index(
                condition=models.Q(("user__isnull", False)), fields=["user"], name="quota_user"
            ),
        ),
        AddIndexConcurrently(
            model_name="quota",
            index=models.Index(
                condition=models.Q(("api_key__isnull", False)), fields=["api_key"], name="quota_key"
            ),
        ),
        migrations.AlterField(
            model_name="quota",
            name="api_key",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="tenants.apikey",
                verbose_name="API key",
            ),
        ),
        migrations.AlterField(
            model_name="quota",
            name="tenant",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="quotas",
                to="tenants.tenant",
            ),
        ),
        migrations.AlterField(
            model_name="quota",
            name="user",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to=settings.AUTH_USER_MODEL,
                verbose_name="user",
            ),
        ),
    ]
