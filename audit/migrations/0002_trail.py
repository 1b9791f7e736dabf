from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

EVENT = """
CREATE TABLE audit_event (
    id uuid NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    tenant_id uuid NOT NULL,
    category varchar(12) NOT NULL,
    action varchar(80) NOT NULL,
    outcome varchar(12) NOT NULL,
    reason varchar(300) NOT NULL DEFAULT '',
    actor_type varchar(20) NOT NULL,
    actor_id uuid,
    actor_label varchar(254) NOT NULL DEFAULT '',
    on_behalf_of uuid,
    api_key_id uuid,
    auth_method varchar(20) NOT NULL DEFAULT '',
    address inet,
    request_id varchar(64) NOT NULL DEFAULT '',
    client_request_id varchar(128),
    object_type varchar(80) NOT NULL DEFAULT '',
    object_id varchar(80) NOT NULL DEFAULT '',
    object_label varchar(254) NOT NULL DEFAULT '',
    intent_id uuid,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, recorded_at)
) PARTITION BY RANGE (recorded_at)
"""

BODY = """
CREATE TABLE audit_body (
    event_id uuid NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant_id uuid NOT NULL,
    before jsonb,
    after jsonb,
    detail jsonb,
    PRIMARY KEY (event_id, recorded_at)
) PARTITION BY RANGE (recorded_at)
"""

LEAF = """
CREATE TABLE audit_leaf (
    event_id uuid NOT NULL,
    recorded_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    seq bigint NOT NULL,
    header bytea NOT NULL,
    salt bytea,
    leaf bytea NOT NULL,
    PRIMARY KEY (event_id, recorded_at)
) PARTITION BY RANGE (recorded_at)
"""

INDEXES = [
    "CREATE INDEX audit_event_by_time ON audit_event (tenant_id, recorded_at DESC, id)",
    "CREATE INDEX audit_event_by_object ON audit_event (tenant_id, object_id, recorded_at)",
    "CREATE INDEX audit_leaf_by_seq ON audit_leaf (tenant_id, seq)",
]

# Partitions inherit neither policies nor grants: row-level security is turned on without a
# policy, so a partition can be reached through its parent alone. They inherit the row trigger
# that refuses changes, but not the one against TRUNCATE.
PARTITIONS = """
CREATE FUNCTION audit_ensure_partitions(months integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET timezone = 'UTC' AS $$
DECLARE
    parent text;
    name text;
    first date;
    made integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['audit_event', 'audit_body', 'audit_leaf'] LOOP
        FOR i IN 0..months LOOP
            first := date_trunc('month', now())::date + make_interval(months => i);
            name := parent || to_char(first, '_YYYY_MM');
            CONTINUE WHEN to_regclass('public.' || name) IS NOT NULL;
            EXECUTE format(
                'CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)',
                name, parent, first, first + interval '1 month');
            EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);
            EXECUTE format(
                'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON public.%I '
                'FOR EACH STATEMENT EXECUTE FUNCTION public.audit_refuse_change()', name);
            made := made + 1;
        END LOOP;
        name := parent || '_default';
        IF to_regclass('public.' || name) IS NULL THEN
            EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I DEFAULT', name, parent);
            EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
            EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);
            EXECUTE format(
                'CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON public.%I '
                'FOR EACH STATEMENT EXECUTE FUNCTION public.audit_refuse_change()', name);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$
"""

# Arguments: object label, tenant column ('' for the platform), label column, redacted columns,
# ignored columns. There is no switch that turns it off.
ROW_CHANGE = """
CREATE FUNCTION audit_row_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    actor jsonb := nullif(current_setting('portal.actor', true), '')::jsonb;
    old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    subject jsonb;
    redacted text;
    event uuid;
    owner uuid := '00000000-0000-0000-0000-000000000000';
    stamp timestamptz := clock_timestamp();
BEGIN
    IF TG_OP = 'UPDATE' AND
       (old_row - string_to_array(TG_ARGV[4], ',')) = (new_row - string_to_array(TG_ARGV[4], ','))
    THEN
        RETURN NULL;
    END IF;
    FOREACH redacted IN ARRAY string_to_array(TG_ARGV[3], ',') LOOP
        IF old_row ? redacted AND new_row ? redacted
           AND old_row -> redacted IS DISTINCT FROM new_row -> redacted THEN
            old_row := jsonb_set(old_row, ARRAY[redacted], '"[redacted]"');
            new_row := jsonb_set(new_row, ARRAY[redacted], '"[redacted, changed]"');
        ELSE
            IF old_row ? redacted THEN
                old_row := jsonb_set(old_row, ARRAY[redacted], '"[redacted]"');
            END IF;
            IF new_row ? redacted THEN
                new_row := jsonb_set(new_row, ARRAY[redacted], '"[redacted]"');
            END IF;
        END IF;
    END LOOP;
    subject := coalesce(new_row, old_row);
    IF TG_ARGV[1] <> '' THEN
        owner := (subject ->> TG_ARGV[1])::uuid;
    END IF;
    -- UUIDv7 by hand, so that events of one moment sort by time here too.
    event := encode(
        set_byte(set_byte(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM stamp) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6),
            6, (get_byte(uuid_send(gen_random_uuid()), 6) & 15) | 112),
            8, (get_byte(uuid_send(gen_random_uuid()), 8) & 63) | 128), 'hex')::uuid;
    INSERT INTO public.audit_event (
        id, recorded_at, tenant_id, category, action, outcome, actor_type, actor_id, actor_label,
        on_behalf_of, api_key_id, auth_method, address, request_id, client_request_id,
        object_type, object_id, object_label, intent_id, occurred_at)
    VALUES (
        event, stamp, owner, 'change', TG_ARGV[0] || '.' || lower(TG_OP), 'success',
        coalesce(actor ->> 'type', 'database'), (actor ->> 'id')::uuid,
        left(coalesce(actor ->> 'label', 'db:' || session_user), 254),
        (actor ->> 'on_behalf_of')::uuid, (actor ->> 'api_key_id')::uuid,
        left(coalesce(actor ->> 'auth_method', ''), 20), (actor ->> 'address')::inet,
        left(coalesce(actor ->> 'request_id', ''), 64), left(actor ->> 'client_request_id', 128),
        TG_ARGV[0], coalesce(subject ->> 'id', subject ->> 'quota_id', ''),
        left(coalesce(subject ->> TG_ARGV[2], ''), 254),
        nullif(current_setting('portal.intent_id', true), '')::uuid, stamp);
    INSERT INTO public.audit_body (event_id, recorded_at, tenant_id, before, after)
    VALUES (event, stamp, owner, old_row, new_row);
    RETURN NULL;
END $$
"""

REFUSE = """
CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$
"""

TABLES = ("audit_event", "audit_body", "audit_leaf")
NIL = "'00000000-0000-0000-0000-000000000000'::uuid"
# An event of the scope's tenant, or of the platform where no tenant is in force.
OWN_OR_PLATFORM = f"tenant_id = coalesce(portal_setting('tenant_id'), {NIL}) OR tenant_id = {NIL}"


def _policies() -> list[str]:
    statements = []
    for table in TABLES:
        statements += [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY one_tenant_read ON {table} FOR SELECT TO {{audit_reader}} "
            "USING (tenant_id = (SELECT current_tenant()))",
            f"CREATE POLICY every_tenant_read ON {table} FOR SELECT TO {{audit_reader_all}} "
            "USING (true)",
            f"CREATE POLICY sealer_read ON {table} FOR SELECT TO {{sealer}} USING (true)",
            f"GRANT SELECT ON {table} TO {{audit_reader}}, {{audit_reader_all}}, {{sealer}}",
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION audit_refuse_change()",
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()",
        ]
    for table in ("audit_event", "audit_body"):
        statements += [
            f"CREATE POLICY own_tenant_insert ON {table} FOR INSERT TO {{app}} "
            f"WITH CHECK ({OWN_OR_PLATFORM})",
            f"CREATE POLICY any_tenant_insert ON {table} FOR INSERT "
            "TO {gateway}, {platform}, {sealer}, {audit_reader}, {audit_reader_all}, {audit_writer} "
            "WITH CHECK (true)",
            f"GRANT INSERT ON {table} TO {{app}}, {{gateway}}, {{platform}}, {{sealer}}, "
            "{audit_reader}, {audit_reader_all}, {audit_writer}",
        ]
    statements += [
        "CREATE POLICY sealer_insert ON audit_leaf FOR INSERT TO {sealer} WITH CHECK (true)",
        "GRANT INSERT ON audit_leaf TO {sealer}",
    ]
    return statements


FUNCTIONS = [
    "REVOKE ALL ON FUNCTION audit_ensure_partitions(integer) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION audit_ensure_partitions(integer) TO {app}",
    # A function's new owner needs CREATE on its schema for the length of the change.
    "GRANT CREATE ON SCHEMA public TO {audit_writer}",
    "ALTER FUNCTION audit_row_change() OWNER TO {audit_writer}",
    "REVOKE CREATE ON SCHEMA public FROM {audit_writer}",
    "SELECT audit_ensure_partitions(3)",
]

DROP = [
    "DROP TABLE audit_leaf, audit_body, audit_event",
    "DROP FUNCTION audit_row_change()",
    "DROP FUNCTION audit_refuse_change()",
    "DROP FUNCTION audit_ensure_partitions(integer)",
]


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial"), ("core", "0001_current_tenant")]

    operations = [
        RoleSQL(
            [EVENT, BODY, LEAF, *INDEXES, PARTITIONS, ROW_CHANGE, REFUSE, *_policies(), *FUNCTIONS],
            DROP,
        ),
    ]
