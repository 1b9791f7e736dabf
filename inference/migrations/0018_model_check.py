import django.db.models.deletion
from django.db import migrations, models

from portal.core.tenancy.operations import Grant


class Migration(migrations.Migration):
    dependencies = [("inference", "0017_version_files")]

    operations = [
        migrations.CreateModel(
            "ModelCheck",
            [
                (
                    "version",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="check_asked",
                        serialize=False,
                        to="inference.modelversion",
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "waiting"),
                            ("running", "running"),
                            ("good", "as registered"),
                            ("bad", "not as registered"),
                        ],
                        max_length=10,
                        verbose_name="state",
                    ),
                ),
                ("asked_at", models.DateTimeField(verbose_name="asked")),
                (
                    "asked_by",
                    models.CharField(blank=True, max_length=200, verbose_name="asked by"),
                ),
                (
                    "started_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="started"),
                ),
                ("ended_at", models.DateTimeField(blank=True, null=True, verbose_name="ended")),
                ("lease_until", models.DateTimeField(blank=True, null=True)),
                ("read_bytes", models.BigIntegerField(default=0)),
                ("total_bytes", models.BigIntegerField(default=0)),
                ("file", models.CharField(blank=True, max_length=500, verbose_name="file")),
                ("faults", models.JSONField(default=list, verbose_name="faults")),
                ("detail", models.CharField(blank=True, max_length=500, verbose_name="detail")),
            ],
            options={"verbose_name": "file check", "verbose_name_plural": "file checks"},
        ),
        Grant(
            "inference_modelcheck",
            {
                "app": "SELECT",
                "platform": "SELECT, INSERT, UPDATE",
                "gateway": "SELECT, UPDATE",
            },
        ),
    ]
