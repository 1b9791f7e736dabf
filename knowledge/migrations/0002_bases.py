import django.contrib.postgres.search
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import knowledge.models.fields
import portal.core.ids
from audit.operations import GovernTable
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, RoleSQL

# What indexing writes is no change that a person made.
WORK = [
    "version",
    "passages",
    "embedded_by",
    "state",
    "parts",
    "parts_done",
    "attempts",
    "job_id",
    "maker",
    "wake_at",
    "waiting_for",
    "error",
]

# Vectors are compared row by row, so they stay in their rows rather than in the side table.
STORAGE = [
    "ALTER TABLE knowledge_chunk ALTER COLUMN embedding SET STORAGE MAIN",
    "CREATE INDEX chunk_words ON knowledge_chunk USING gin (words)",
]

SIGNATURE = "knowledge_match(uuid, text, text[], text[], boolean, uuid[], integer)"

# Under row-level security no index of words is used: its operator might tell what it sees, so it
# has to wait for the policy. This runs as the platform's role, whose policy asks nothing, and
# keeps to the scope's tenant itself. It gives ids and scores; what they stand for is read under
# the policy. In how many passages a word stands is counted up to a bound: beyond it, it tells
# little. Passages are sought by the rarest words, and scored by the share of all words that they
# have, weighted as BM25 weighs them. What is handed in are letters and digits alone. Statements that
# name words alone leave the planner no index but that of words; left to itself it reads the table,
# for it can't know how rare a word is that comes as a parameter.
MATCH = [
    """
CREATE FUNCTION knowledge_match(base uuid, plain text, pairs text[], singles text[], every boolean,
                                wanted uuid[], most integer)
RETURNS TABLE (chunk_id uuid, score double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off AS $$
DECLARE
    bound CONSTANT bigint := 5000;
    tenant uuid := public.current_tenant();
    mark tsquery := ('kb' || replace(base::text, '-', ''))::tsquery;
    size double precision;
    terms tsquery[];
    counts bigint[];
    weights double precision[];
    total double precision;
    sought tsquery;
    found bigint := 0;
    whole tsquery;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM public.knowledge_knowledgebase b
                    WHERE b.tenant_id = tenant AND b.id = base) THEN
        RETURN;
    END IF;
    SELECT coalesce(sum(d.passages), 0) INTO size FROM public.knowledge_document d
     WHERE d.tenant_id = tenant AND d.knowledge_base_id = base;
    SELECT array_agg(t.term ORDER BY t.among), array_agg(t.among ORDER BY t.among)
      INTO terms, counts
      FROM (SELECT q.term, (SELECT count(*) FROM (
                       SELECT 1 FROM public.knowledge_chunk c
                        WHERE c.words @@ (mark && q.term) LIMIT bound) n
                   ) AS among
              FROM (SELECT quote_literal(word)::tsquery
                      FROM unnest(tsvector_to_array(to_tsvector('english', plain)) || pairs) AS word
                    UNION
                    SELECT (quote_literal(one) || ':*')::tsquery FROM unnest(singles) AS one
                   ) AS q (term)
           ) t;
    IF terms IS NULL THEN
        RETURN;
    END IF;
    FOR place IN 1 .. array_length(terms, 1) LOOP
        weights[place] := ln(1 + (greatest(size, counts[place]) - counts[place] + 0.5)
                                 / (counts[place] + 0.5));
        whole := CASE WHEN whole IS NULL THEN terms[place] ELSE whole || terms[place] END;
        IF every THEN
            sought := CASE WHEN sought IS NULL THEN terms[place] ELSE sought && terms[place] END;
        ELSIF counts[place] > 0 AND (sought IS NULL OR found + counts[place] <= bound) THEN
            sought := CASE WHEN sought IS NULL THEN terms[place] ELSE sought || terms[place] END;
            found := found + counts[place];
        END IF;
    END LOOP;
    IF sought IS NULL THEN
        RETURN;
    END IF;
    total := (SELECT sum(w) FROM unnest(weights) AS w);
    RETURN QUERY
    WITH sifted AS MATERIALIZED (
        SELECT c.id, c.tenant_id, c.document_id, c.version, c.words FROM public.knowledge_chunk c
         WHERE c.words @@ (mark && sought) LIMIT 4 * bound)
    SELECT c.id,
           (SELECT sum(u.weight) FROM unnest(terms, weights) AS u (term, weight)
             WHERE c.words @@ u.term) / total * (0.9 + 0.1 * ts_rank(c.words, whole, 32))
      FROM sifted c
      JOIN public.knowledge_document d ON d.tenant_id = c.tenant_id AND d.id = c.document_id
     WHERE d.tenant_id = tenant AND d.knowledge_base_id = base
       AND c.version = d.version AND d.enabled AND d.archived_at IS NULL
       AND (wanted IS NULL OR d.id = ANY (wanted))
     ORDER BY 2 DESC, 1 LIMIT most;
END $$
""",
    f"REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC",
    f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {{app}}",
    # A function's new owner needs CREATE on its schema for the length of the change.
    "GRANT CREATE ON SCHEMA public TO {platform}",
    f"ALTER FUNCTION {SIGNATURE} OWNER TO {{platform}}",
    "REVOKE CREATE ON SCHEMA public FROM {platform}",
]


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0004_statistics"),
        ("knowledge", "0001_initial"),
        ("tenants", "0011_quota_indexes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="KnowledgeBase",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.core.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=40, verbose_name="name")),
                (
                    "description",
                    models.CharField(blank=True, max_length=400, verbose_name="description"),
                ),
                (
                    "method",
                    models.CharField(
                        choices=[
                            ("semantic", "Meaning"),
                            ("full_text", "Full text"),
                            ("hybrid", "Meaning and full text"),
                            ("keyword", "All keywords"),
                        ],
                        default="full_text",
                        max_length=12,
                        verbose_name="search by",
                    ),
                ),
                ("top_k", models.PositiveSmallIntegerField(default=5, verbose_name="passages")),
                ("score_threshold", models.FloatField(null=True, verbose_name="least score")),
                (
                    "embedding_model",
                    models.CharField(blank=True, max_length=80, verbose_name="embedding model"),
                ),
                (
                    "rerank_model",
                    models.CharField(blank=True, max_length=80, verbose_name="reranking model"),
                ),
                (
                    "prompt_template",
                    models.TextField(
                        default="Answer the question from the context. If the context does not hold the answer, say so.\n\nContext:\n{{context}}\n\nQuestion: {{query}}",
                        verbose_name="prompt template",
                    ),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                (
                    "api_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.apikey",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
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
            ],
            options={
                "verbose_name": "knowledge base",
                "verbose_name_plural": "knowledge bases",
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            name="Document",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.core.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=200, verbose_name="name")),
                (
                    "source",
                    models.CharField(
                        choices=[("upload", "Upload"), ("text", "Text")],
                        max_length=12,
                        verbose_name="source",
                    ),
                ),
                ("enabled", models.BooleanField(default=True, verbose_name="enabled")),
                ("archived_at", models.DateTimeField(null=True, verbose_name="archived")),
                ("metadata", models.JSONField(default=dict, verbose_name="metadata")),
                ("version", models.PositiveIntegerField(default=0, verbose_name="version")),
                ("latest", models.PositiveIntegerField(default=1)),
                ("passages", models.PositiveIntegerField(default=0, verbose_name="passages")),
                ("embedded_by", models.CharField(blank=True, max_length=120)),
                (
                    "state",
                    models.SmallIntegerField(
                        choices=[
                            (0, "Waiting to be read"),
                            (1, "Being indexed"),
                            (2, "Ready"),
                            (3, "Failed"),
                        ],
                        default=0,
                        verbose_name="state",
                    ),
                ),
                ("parts", models.PositiveIntegerField(default=0)),
                ("parts_done", models.PositiveIntegerField(default=0)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("job_id", models.UUIDField(null=True)),
                ("maker", models.CharField(blank=True, max_length=120)),
                ("wake_at", models.DateTimeField(null=True)),
                ("waiting_for", models.CharField(blank=True, max_length=500)),
                ("error", models.CharField(blank=True, max_length=500, verbose_name="error")),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                ("changed_at", models.DateTimeField(auto_now_add=True, verbose_name="changed")),
                (
                    "created_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
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
                (
                    "knowledge_base",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="documents",
                        to="knowledge.knowledgebase",
                    ),
                ),
            ],
            options={
                "verbose_name": "document",
                "verbose_name_plural": "documents",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="Chunk",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.core.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("version", models.PositiveIntegerField()),
                ("position", models.PositiveIntegerField()),
                ("text", models.TextField()),
                ("words", django.contrib.postgres.search.SearchVectorField()),
                ("embedding", knowledge.models.fields.VectorField(null=True)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="knowledge.document",
                    ),
                ),
                (
                    "knowledge_base",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="knowledge.knowledgebase",
                    ),
                ),
            ],
            options={
                "ordering": ["document", "position"],
            },
        ),
        migrations.CreateModel(
            name="DocumentVersion",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=portal.core.ids.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("number", models.PositiveIntegerField(verbose_name="version")),
                ("digest", models.CharField(max_length=64, verbose_name="SHA-256")),
                ("size", models.PositiveIntegerField(verbose_name="size")),
                ("kind", models.CharField(max_length=8, verbose_name="type")),
                ("content", models.BinaryField(null=True)),
                ("text", models.TextField(null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                (
                    "created_by",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "document",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="versions",
                        to="knowledge.document",
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
            ],
            options={
                "ordering": ["-number"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "document", "number"), name="one_version_a_number"
                    )
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="knowledgebase",
            constraint=models.UniqueConstraint(
                fields=("tenant", "id"), name="knowledge_base_in_tenant"
            ),
        ),
        migrations.AddConstraint(
            model_name="knowledgebase",
            constraint=models.UniqueConstraint(
                fields=("tenant", "name"), name="one_knowledge_base_a_name"
            ),
        ),
        migrations.AddConstraint(
            model_name="knowledgebase",
            constraint=models.CheckConstraint(
                condition=models.Q(("top_k__gte", 1), ("top_k__lte", 50)),
                name="knowledge_base_top_k",
            ),
        ),
        migrations.AddConstraint(
            model_name="knowledgebase",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("score_threshold", None),
                    models.Q(("score_threshold__gte", 0), ("score_threshold__lte", 1)),
                    _connector="OR",
                ),
                name="knowledge_base_threshold",
            ),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(
                condition=models.Q(("wake_at__isnull", False)),
                fields=["state", "wake_at"],
                name="document_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="document_in_tenant"),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.UniqueConstraint(
                fields=("tenant", "knowledge_base", "name"), name="one_document_a_name"
            ),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state__in", (0, 1)), ("wake_at__isnull", False)),
                    models.Q(
                        models.Q(("state__in", (0, 1)), _negated=True), ("wake_at__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="document_due_iff_under_way",
            ),
        ),
        migrations.AddIndex(
            model_name="chunk",
            index=models.Index(fields=["tenant", "knowledge_base"], name="chunk_of_base"),
        ),
        migrations.AddConstraint(
            model_name="chunk",
            constraint=models.UniqueConstraint(
                fields=("tenant", "document", "version", "position"), name="one_chunk_a_position"
            ),
        ),
        EnableTenantRLS("knowledge_knowledgebase"),
        EnableTenantRLS("knowledge_document", gateway="SELECT (tenant_id, id, state, wake_at)"),
        EnableTenantRLS("knowledge_documentversion"),
        EnableTenantRLS("knowledge_chunk"),
        CompositeForeignKey("knowledge_knowledgebase", "api_key_id", to="tenants_apikey"),
        CompositeForeignKey(
            "knowledge_document",
            "knowledge_base_id",
            to="knowledge_knowledgebase",
            on_delete="CASCADE",
        ),
        CompositeForeignKey(
            "knowledge_documentversion",
            "document_id",
            to="knowledge_document",
            on_delete="CASCADE",
        ),
        CompositeForeignKey(
            "knowledge_chunk",
            "knowledge_base_id",
            to="knowledge_knowledgebase",
            on_delete="CASCADE",
        ),
        CompositeForeignKey(
            "knowledge_chunk", "document_id", to="knowledge_document", on_delete="CASCADE"
        ),
        GovernTable("knowledge_knowledgebase", label="knowledge.knowledgebase", name="name"),
        GovernTable("knowledge_document", label="knowledge.document", name="name", ignore=WORK),
        RoleSQL(STORAGE, []),
        RoleSQL(MATCH, f"DROP FUNCTION {SIGNATURE}"),
    ]
