import importlib

from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# No condition names these columns, so no plan needs to know how their values are spread; sorting
# samples of JSON bodies took more of the server than writing them did. Partitions inherit this as
# little as they inherit policies.
NO_STATISTICS = """
CREATE FUNCTION audit_no_statistics(parent text, name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    plain CONSTANT jsonb := '{
        "audit_body": ["before", "after", "detail"],
        "audit_event": ["xid", "reason", "actor_label", "on_behalf_of", "address",
                        "client_request_id", "object_label", "occurred_at"],
        "audit_leaf": ["header", "salt", "leaf"]}';
    field text;
BEGIN
    FOR field IN SELECT jsonb_array_elements_text(plain -> parent) LOOP
        EXECUTE format('ALTER TABLE public.%I ALTER COLUMN %I SET STATISTICS 0', name, field);
    END LOOP;
END $$
"""

EVERY_PARTITION = """
SELECT audit_no_statistics(p.relname, c.relname)
  FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid
 WHERE p.relname IN ('audit_event', 'audit_body', 'audit_leaf') AND c.relkind = 'r'
"""

BEFORE = importlib.import_module("audit.migrations.0002_trail").PARTITIONS.replace(
    "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"
)
MADE = "            made := made + 1;"
PARTITIONS = BEFORE.replace(
    MADE, f"            PERFORM public.audit_no_statistics(parent, name);\n{MADE}"
)


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_logentry")]

    operations = [
        RoleSQL(
            [
                NO_STATISTICS,
                "REVOKE ALL ON FUNCTION audit_no_statistics(text, text) FROM PUBLIC",
                EVERY_PARTITION,
                PARTITIONS,
            ],
            [BEFORE, "DROP FUNCTION audit_no_statistics(text, text)"],
        ),
    ]
