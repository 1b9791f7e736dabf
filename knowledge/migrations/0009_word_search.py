from importlib import import_module

from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# As before it runs as the platform's role, keeps to the scope's tenant itself and gives ids and
# scores alone; what is handed in are letters and digits alone. What is new is which passages are
# scored. A word stands in few passages, or in more than are worth to be looked at one by one: up to
# that bound it is counted. Passages with a rare word are all scored. Where they are too few, those
# are added that have the common words together: all of them at first, then without the commonest,
# and at last those with any word, of which no more than the bound are looked at.
#
# OFFSET 0 keeps the planner to the index of words: it can't know how rare a word is that comes as a
# parameter, and would rather read the passages of each document. The words are copied, so that a
# row which holds them outside is fetched once rather than for each term.
MATCH = """
CREATE OR REPLACE FUNCTION knowledge_match(base uuid, plain text, pairs text[], singles text[],
                                           every boolean, wanted uuid[], most integer)
RETURNS TABLE (chunk_id uuid, score double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public
SET enable_seqscan = off AS $$
DECLARE
    bound CONSTANT bigint := 2000;
    tenant uuid := public.current_tenant();
    mark tsquery := ('kb' || replace(base::text, '-', ''))::tsquery;
    size double precision;
    terms tsquery[];
    counts bigint[];
    weights double precision[];
    whole tsquery;
    rare tsquery;
    common tsquery;
    together tsquery[] := '{}';
    sought tsquery;
    found bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM public.knowledge_knowledgebase b
                    WHERE b.tenant_id = tenant AND b.id = base) THEN
        RETURN;
    END IF;
    SELECT coalesce(sum(d.passages), 0) INTO size FROM public.knowledge_document d
     WHERE d.tenant_id = tenant AND d.knowledge_base_id = base;

    WITH asked (term) AS (
        SELECT quote_literal(word)::tsquery
          FROM unnest(tsvector_to_array(to_tsvector('english', plain)) || pairs) AS word
        UNION
        SELECT (quote_literal(one) || ':*')::tsquery FROM unnest(singles) AS one
    ), counted AS MATERIALIZED (
        SELECT a.term, (SELECT count(*) FROM (
                   SELECT 1 FROM public.knowledge_chunk c
                    WHERE c.words @@ (mark && a.term) LIMIT bound) n) AS among
          FROM asked a
    )
    SELECT array_agg(t.term ORDER BY t.among), array_agg(t.among ORDER BY t.among),
           array_agg(ln(1 + (greatest(size, t.among) - t.among + 0.5) / (t.among + 0.5))
                     ORDER BY t.among)
      INTO terms, counts, weights FROM counted t;
    IF terms IS NULL THEN
        RETURN;
    END IF;

    FOR place IN 1 .. cardinality(terms) LOOP
        whole := coalesce(whole || terms[place], terms[place]);
        IF every THEN
            rare := coalesce(rare && terms[place], terms[place]);
        ELSIF counts[place] > 0 AND found + counts[place] < bound THEN
            rare := coalesce(rare || terms[place], terms[place]);
            found := found + counts[place];
        ELSIF counts[place] > 0 THEN
            common := coalesce(common && terms[place], terms[place]);
            together := together || common;
        END IF;
    END LOOP;

    IF cardinality(together) > 0 THEN
        together[1] := whole;
    END IF;

    sought := rare;
    FOR place IN REVERSE cardinality(together) .. 1 LOOP
        SELECT count(*) INTO found FROM (
            SELECT 1
              FROM (SELECT w.tenant_id, w.document_id, w.version FROM public.knowledge_chunk w
                     WHERE w.words @@ (mark && sought) OFFSET 0) c
              JOIN public.knowledge_document d
                ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.version = c.version
             WHERE d.tenant_id = tenant AND d.knowledge_base_id = base
               AND d.enabled AND d.archived_at IS NULL
               AND (wanted IS NULL OR d.id = ANY (wanted)) LIMIT most) n;
        EXIT WHEN found >= most;
        sought := coalesce(rare || together[place], together[place]);
    END LOOP;

    RETURN QUERY
    WITH sifted AS MATERIALIZED (
        SELECT c.id, c.words || ''::tsvector AS words
          FROM (SELECT w.id, w.tenant_id, w.document_id, w.version, w.words
                  FROM public.knowledge_chunk w
                 WHERE w.words @@ (mark && sought) OFFSET 0) c
          JOIN public.knowledge_document d
            ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.version = c.version
         WHERE d.tenant_id = tenant AND d.knowledge_base_id = base
           AND d.enabled AND d.archived_at IS NULL
           AND (wanted IS NULL OR d.id = ANY (wanted)) LIMIT bound)
    SELECT s.id, sum(u.weight) / (SELECT sum(weight) FROM unnest(weights) AS weight)
                 * (0.9 + 0.1 * min(ts_rank(s.words, whole, 32)))
      FROM sifted s JOIN unnest(terms, weights) AS u (term, weight) ON s.words @@ u.term
     GROUP BY s.id ORDER BY 2 DESC, 1 LIMIT most;
END $$
"""
BEFORE = import_module("knowledge.migrations.0002_bases").MATCH[0]


def replaced(function: str) -> list[str]:
    """Statements that put the function in the other's place, of which the platform is the owner."""
    return [
        "GRANT CREATE ON SCHEMA public TO {platform}",
        "SET LOCAL ROLE {platform}",
        function,
        "RESET ROLE",
        "REVOKE CREATE ON SCHEMA public FROM {platform}",
    ]


# Else the newest words wait in a list that every search reads from one end to the other, once for
# each of its words. Embedding a passage costs far more than putting its words into the index.
AT_ONCE = "ALTER INDEX chunk_words SET (fastupdate = {0})"


class Migration(migrations.Migration):
    dependencies = [("knowledge", "0008_evaluations")]

    operations = [
        RoleSQL(
            replaced(MATCH),
            replaced(BEFORE.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")),
        ),
        migrations.RunSQL(AT_ONCE.format("off"), AT_ONCE.format("on")),
    ]
