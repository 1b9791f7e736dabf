from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0015_worker_orders")]

    operations = [
        migrations.AddField(
            "model",
            "least_agreement",
            models.FloatField(
                verbose_name="least agreement",
                default=0.97,
                db_default=0.97,
                help_text="Share of places, 0 to 1, where a quantized version must choose the unquantized model's token.",
            ),
        ),
        migrations.AddField(
            "model",
            "most_size",
            models.FloatField(
                verbose_name="largest size",
                default=0.30,
                db_default=0.30,
                help_text="Of a quantized version's weights, over their size in fp32.",
            ),
        ),
        migrations.AddField(
            "modelversion",
            "quality",
            models.JSONField(
                verbose_name="quality",
                null=True,
                blank=True,
                help_text="What was measured of quantized weights; nothing for others.",
            ),
        ),
    ]
