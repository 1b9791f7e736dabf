from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("inference", "0012_closing_of_jobs_and_files")]

    operations = [
        migrations.AddField(
            model_name="model",
            name="task",
            field=models.CharField(
                choices=[
                    ("generate", "generates text"),
                    ("embed", "makes embeddings"),
                    ("rerank", "ranks documents"),
                ],
                db_default="generate",
                default="generate",
                max_length=10,
                verbose_name="task",
            ),
        ),
    ]
