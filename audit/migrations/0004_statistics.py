import importlib

from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# No condition names these columns, so no plan needs to know how their values are spread; sorting
# samples of JSON bodies took more of the server than writing them did. Of the others a tenth of the
# usual sample is enough. Partitions inherit this as little as they inherit policies.
FEW_STATISTICS = """
CREATE FUNCTION audit_few_statistics(parent text, name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
    plain CONSTANT jsonb := '{
        "audit_body": ["before", "after", "detail"],
        "audit_event": ["xid", "reason", "actor_label", "on_behalf_of", "address",
                        "client_request_id", "object_label", "occurred_at"],
        "audit_leaf": ["header", "salt", "leaf"]}';
    field text;
BEGIN
    FOR field IN SELECT attname FROM pg_attribute
                  WHERE attrelid = format('public.%I', name)::regclass
                    AND attnum > 0 AND NOT attisdropped LOOP
        EXECUTE format('ALTER TABLE public.%I ALTER COLUMN %I SET STATISTICS %s', name, field,
                       CASE WHEN plain -> parent ? field THEN 0 ELSE 10 END);
    END LOOP;
END $$
"""

EVERY_PARTITION = """
SELECT audit_few_statistics(p.relname, c.relname)
  FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid
 WHERE p.relname IN ('audit_event', 'audit_body', 'audit_leaf') AND c.relkind = 'r'
"""

BEFORE = importlib.import_module("audit.migrations.0002_trail").PARTITIONS.replace(
    "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"
)
# Backwards it gives the newest first, as people read; forwards, a tenant's newest event is written
# at the end of its part of the index, where there is room.
BY_TIME = "CREATE INDEX audit_event_by_time ON audit_event (tenant_id, recorded_at, id)"
BY_TIME_BEFORE = importlib.import_module("audit.migrations.0002_trail").INDEXES[0]

MADE = "            made := made + 1;"
PARTITIONS = BEFORE.replace(
    MADE, f"            PERFORM public.audit_few_statistics(parent, name);\n{MADE}"
)


class Migration(migrations.Migration):
    dependencies = [("audit", "0003_logentry")]

    operations = [
        RoleSQL(
            [
                FEW_STATISTICS,
                "REVOKE ALL ON FUNCTION audit_few_statistics(text, text) FROM PUBLIC",
                EVERY_PARTITION,
                PARTITIONS,
                "DROP INDEX audit_event_by_time",
                BY_TIME,
            ],
            [
                "DROP INDEX audit_event_by_time",
                BY_TIME_BEFORE,
                BEFORE,
                "DROP FUNCTION audit_few_statistics(text, text)",
            ],
        ),
    ]
