from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0016_quality")]

    operations = [
        migrations.AddField(
            "modelversion",
            "format",
            models.CharField(
                blank=True, db_default="", default="", max_length=20, verbose_name="format"
            ),
        ),
        migrations.AddField(
            "modelversion",
            "provenance",
            models.CharField(
                blank=True, db_default="", default="", max_length=500, verbose_name="provenance"
            ),
        ),
        migrations.AddField(
            "modelversion",
            "files",
            models.JSONField(blank=True, null=True, verbose_name="files"),
        ),
        migrations.AlterField(
            "modelversion",
            "digest",
            models.CharField(
                help_text="SHA-256 of the weights' file, or of the list of a folder's files.",
                max_length=64,
                verbose_name="digest",
            ),
        ),
    ]
