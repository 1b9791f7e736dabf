from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0008_routes")]

    operations = [
        migrations.AddField(
            "worker",
            "counts",
            models.JSONField(
                null=True,
                help_text="What the process has done since its start: claims, tokens, ended jobs.",
            ),
        ),
    ]
