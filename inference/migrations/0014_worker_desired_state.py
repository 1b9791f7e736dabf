import django.utils.timezone
from django.db import migrations, models
from django.db.models.functions import Now


class Migration(migrations.Migration):
    dependencies = [("inference", "0013_model_task")]

    operations = [
        migrations.AddField(
            "worker",
            "desired_state",
            models.CharField(
                "desired state",
                max_length=10,
                choices=[
                    ("serving", "Serving"),
                    ("drained", "Drained"),
                    ("unloaded", "Unloaded"),
                ],
                default="serving",
                db_default="serving",
            ),
        ),
        migrations.AddField(
            "worker",
            "load_generation",
            models.PositiveIntegerField(
                default=0, db_default=0, help_text="Goes up with each order to load."
            ),
        ),
        migrations.AddField(
            "worker",
            "state_since",
            models.DateTimeField("since", default=django.utils.timezone.now, db_default=Now()),
        ),
        migrations.AddField(
            "worker",
            "loaded",
            models.JSONField(
                null=True,
                help_text="Engine, options and context length of the model that it holds.",
            ),
        ),
        migrations.AddField(
            "worker",
            "waiting",
            models.PositiveIntegerField("waiting in the engine", default=0, db_default=0),
        ),
        migrations.AddField(
            "worker",
            "tokens_per_second",
            models.FloatField(
                "generated tokens a second",
                null=True,
                help_text="Over the last few beats; null while no model is loaded.",
            ),
        ),
        migrations.AddField(
            "worker",
            "memory_bytes",
            models.BigIntegerField(
                default=0, db_default=0, help_text="Of the engine's device; 0 where it can't tell."
            ),
        ),
        migrations.AddField(
            "worker",
            "resident_bytes",
            models.BigIntegerField(
                default=0,
                db_default=0,
                help_text="Main memory of the worker and its engine's process.",
            ),
        ),
        migrations.AddField(
            "worker", "cache_tokens", models.BigIntegerField(default=0, db_default=0)
        ),
        migrations.AddField(
            "worker", "cached_tokens", models.BigIntegerField(default=0, db_default=0)
        ),
        migrations.AlterField(
            "worker",
            "state",
            models.CharField(
                "state",
                max_length=10,
                choices=[
                    ("loading", "Loading the model"),
                    ("ready", "Ready"),
                    ("draining", "Draining"),
                    ("drained", "Drained"),
                    ("unloaded", "Unloaded"),
                    ("stopped", "Stopped"),
                    ("failed", "Failed"),
                ],
            ),
        ),
    ]
