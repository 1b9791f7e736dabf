import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """A webhook may tell of something else than a job's end."""

    dependencies = [("inference", "0018_model_check")]

    operations = [
        migrations.AddField("webhookdelivery", "told", models.JSONField(null=True)),
        migrations.AlterField(
            "webhookdelivery",
            "job",
            models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="webhooks",
                to="inference.job",
            ),
        ),
    ]
