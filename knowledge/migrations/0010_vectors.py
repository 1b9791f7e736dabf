import django.db.models.deletion
from django.db import migrations, models

import knowledge.models.fields
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, RoleSQL

# A search by meaning compares every vector of a knowledge base. Beside texts and words it read
# three times as much as it needed, and each passage, words in the index included, was written a
# second time when its vector came. Passages can't be read while this runs, a few seconds for each
# hundred thousand.
MOVE = """
INSERT INTO knowledge_chunkvector (chunk_id, tenant_id, knowledge_base_id, document_id, version,
                                   embedding)
SELECT id, tenant_id, knowledge_base_id, document_id, version, l2_normalize(embedding)::halfvec
  FROM knowledge_chunk WHERE embedding IS NOT NULL
"""
MOVE_BACK = """
UPDATE knowledge_chunk c SET embedding = v.embedding::vector
  FROM knowledge_chunkvector v WHERE v.tenant_id = c.tenant_id AND v.chunk_id = c.id
"""


def as_platform(statement: str) -> list[str]:
    """The owner is bound by the policies too, and has no tenant here."""
    return ["SET LOCAL ROLE {platform}", statement, "RESET ROLE"]


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0011_quota_indexes"),
        ("knowledge", "0009_word_search"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="chunk",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="chunk_in_tenant"),
        ),
        migrations.CreateModel(
            name="ChunkVector",
            fields=[
                (
                    "chunk",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="vector",
                        serialize=False,
                        to="knowledge.chunk",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                ("knowledge_base_id", models.UUIDField()),
                ("document_id", models.UUIDField()),
                ("version", models.PositiveIntegerField()),
                ("embedding", knowledge.models.fields.HalfVectorField()),
            ],
            options={
                "indexes": [
                    models.Index(fields=["tenant", "knowledge_base_id"], name="vector_of_base")
                ],
            },
        ),
        # In their rows, as far as a page holds them, rather than in the side table.
        migrations.RunSQL(
            "ALTER TABLE knowledge_chunkvector ALTER COLUMN embedding SET STORAGE MAIN",
            migrations.RunSQL.noop,
        ),
        EnableTenantRLS("knowledge_chunkvector"),
        CompositeForeignKey(
            "knowledge_chunkvector", "chunk_id", to="knowledge_chunk", on_delete="CASCADE"
        ),
        RoleSQL(as_platform(MOVE), as_platform(MOVE_BACK)),
        migrations.RemoveField(model_name="chunk", name="embedding"),
    ]
