import django.db.models.deletion
from django.db import migrations, models

from portal.core.tenancy.operations import Grant


class Migration(migrations.Migration):
    dependencies = [("inference", "0003_statistics")]

    operations = [
        migrations.AddField(
            "worker",
            "pace",
            models.FloatField(
                "tokens a second",
                null=True,
                help_text="Reserved tokens a second while every slot was taken; "
                "unknown until it was.",
            ),
        ),
        migrations.CreateModel(
            "QueueForecast",
            [
                (
                    "deployment",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="forecast",
                        serialize=False,
                        to="inference.deployment",
                    ),
                ),
                ("read_at", models.DateTimeField()),
                ("head", models.BigIntegerField(help_text="Start tag of the job that is next.")),
                (
                    "pace",
                    models.FloatField(
                        null=True, help_text="Reserved tokens a second of all its workers."
                    ),
                ),
                (
                    "shares",
                    models.JSONField(
                        help_text="Virtual time and weight of each tenant ahead of the head."
                    ),
                ),
                (
                    "ranks",
                    models.JSONField(help_text="Place and start tag of some of those who wait."),
                ),
            ],
        ),
        Grant(
            "inference_queueforecast",
            {
                "app": "SELECT",
                "platform": "SELECT",
                "gateway": "SELECT, INSERT, UPDATE, DELETE",
            },
        ),
    ]
