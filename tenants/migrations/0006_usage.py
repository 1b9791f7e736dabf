from django.db import migrations, models

import portal.core.ids
from portal.core.tenancy.operations import EnableTenantRLS, Grant, RoleSQL

# Stable, so that PostgreSQL keeps one value for the rows that are there and rewrites nothing.
XID = (
    "ALTER TABLE tenants_ledgerentry "
    "ADD COLUMN xid bigint DEFAULT (pg_current_xact_id()::text::bigint)"
)

WATERMARK = """
INSERT INTO tenants_usagewatermark (id, cluster, xid, since, seen_xid, seen_at)
SELECT 1, system_identifier, 0, 'epoch', 0, 'epoch' FROM pg_control_system()
"""

COLUMNS = """tenant_id, starts_at, user_id, api_key_id, model_id, sku, currency,
        requests, prompt_tokens, completion_tokens, cost"""

SUMS = """tenant_id, date_bin('15 minutes', admitted_at, '2000-01-01 00:00+00'), user_id,
        api_key_id, model_id, sku, currency, count(*), sum(prompt_tokens), sum(completion_tokens),
        sum(cost)"""

# Each entry is counted once: those of transactions from the watermark up to the oldest one that
# still ran are added in the transaction that moves the watermark there. Nothing below can be
# committed any more, and what is above waits for the next run.
#
# What to read is found by time, for the ledger has no index on xid: a transaction that had not
# begun to write at seen_at can't have recorded anything before. Five minutes are for clocks that
# are set back.
#
# Where the database was restored in another cluster, ids began anew and say nothing of the
# entries that are there. They are told apart by time instead, at a moment when nobody writes.
ROLL_UP = f"""
CREATE FUNCTION usage_roll_up() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    mark public.tenants_usagewatermark;
    cluster_now bigint := (SELECT system_identifier FROM pg_control_system());
    moment timestamptz;
    seen pg_snapshot;
    oldest bigint;
    following bigint;
    complete timestamptz;
    added bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(4919131752989213697);
    SELECT * INTO STRICT mark FROM public.tenants_usagewatermark;
    moment := clock_timestamp();
    seen := pg_current_snapshot();
    oldest := pg_snapshot_xmin(seen)::text::bigint;
    following := pg_snapshot_xmax(seen)::text::bigint;
    IF mark.cluster <> cluster_now THEN
        IF oldest < following THEN
            RETURN 0;
        END IF;
        DELETE FROM public.tenants_usagebucket;
        INSERT INTO public.tenants_usagebucket (id, {COLUMNS})
        SELECT gen_random_uuid(), s.* FROM (
            SELECT {SUMS} FROM public.tenants_ledgerentry WHERE recorded_at < moment
             GROUP BY 1, 2, 3, 4, 5, 6, 7) s;
        UPDATE public.tenants_usagewatermark
           SET cluster = cluster_now, xid = oldest, since = moment, seen_xid = following,
               seen_at = moment, complete_until = moment;
        RETURN (SELECT coalesce(sum(requests), 0) FROM public.tenants_usagebucket);
    END IF;
    complete := CASE WHEN oldest = following THEN moment
                     WHEN oldest >= mark.seen_xid THEN mark.seen_at
                     ELSE mark.complete_until END;
    WITH sums AS (
        SELECT {SUMS}
          FROM public.tenants_tenant t CROSS JOIN LATERAL (
            SELECT * FROM public.tenants_ledgerentry l
             WHERE l.tenant_id = t.id AND l.recorded_at >= mark.since
               AND l.xid >= mark.xid AND l.xid < oldest OFFSET 0) e
         GROUP BY 1, 2, 3, 4, 5, 6, 7
    ), counted AS (
        INSERT INTO public.tenants_usagebucket AS b (id, {COLUMNS})
        SELECT gen_random_uuid(), s.* FROM sums s
        ON CONFLICT (tenant_id, starts_at, user_id, api_key_id, model_id, sku, currency)
        DO UPDATE SET requests = b.requests + excluded.requests,
            prompt_tokens = b.prompt_tokens + excluded.prompt_tokens,
            completion_tokens = b.completion_tokens + excluded.completion_tokens,
            cost = b.cost + excluded.cost
    )
    SELECT coalesce(sum(count), 0) INTO added FROM sums;
    UPDATE public.tenants_usagewatermark
       SET xid = oldest, seen_xid = following, seen_at = moment, complete_until = complete,
           since = greatest(since, complete - interval '5 minutes');
    RETURN added;
END $$
"""

# The application reads its own tenant's rollups and writes none: only this function crosses
# tenants for it, and it tells nothing but a number.
FUNCTION = [
    ROLL_UP,
    "REVOKE ALL ON FUNCTION usage_roll_up() FROM PUBLIC",
    "GRANT CREATE ON SCHEMA public TO {platform}",
    "ALTER FUNCTION usage_roll_up() OWNER TO {platform}",
    "REVOKE CREATE ON SCHEMA public FROM {platform}",
    "SET LOCAL ROLE {platform}",
    "GRANT EXECUTE ON FUNCTION usage_roll_up() TO {app}",
    "RESET ROLE",
]
DROP_FUNCTION = [
    "SET LOCAL ROLE {platform}",
    "DROP FUNCTION usage_roll_up()",
    "RESET ROLE",
]


class Migration(migrations.Migration):
    dependencies = [("tenants", "0005_quota_warnings")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                RoleSQL(
                    [XID, "ALTER TABLE tenants_ledgerentry ALTER COLUMN xid SET STATISTICS 10"],
                    "ALTER TABLE tenants_ledgerentry DROP COLUMN xid",
                )
            ],
            state_operations=[
                migrations.AddField(
                    model_name="ledgerentry",
                    name="xid",
                    field=models.BigIntegerField(editable=False, default=0),
                    preserve_default=False,
                )
            ],
        ),
        migrations.CreateModel(
            name="UsageBucket",
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
                ("tenant_id", models.UUIDField()),
                ("starts_at", models.DateTimeField(verbose_name="begins")),
                ("user_id", models.UUIDField(null=True)),
                ("api_key_id", models.UUIDField(null=True)),
                ("model_id", models.UUIDField()),
                ("sku", models.CharField(max_length=120, verbose_name="SKU")),
                ("currency", models.CharField(max_length=3)),
                (
                    "requests",
                    models.BigIntegerField(
                        help_text="Requests that were charged.", verbose_name="requests"
                    ),
                ),
                ("prompt_tokens", models.BigIntegerField(verbose_name="prompt tokens")),
                ("completion_tokens", models.BigIntegerField(verbose_name="completion tokens")),
                (
                    "cost",
                    models.BigIntegerField(
                        help_text="Nano-units of the currency.", verbose_name="cost"
                    ),
                ),
            ],
            options={
                "verbose_name": "usage",
                "verbose_name_plural": "usage",
                "indexes": [models.Index(fields=["starts_at"], name="usage_by_time")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=(
                            "tenant_id",
                            "starts_at",
                            "user_id",
                            "api_key_id",
                            "model_id",
                            "sku",
                            "currency",
                        ),
                        name="one_usage_bucket",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="UsageWatermark",
            fields=[
                (
                    "id",
                    models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False),
                ),
                ("cluster", models.BigIntegerField()),
                ("xid", models.BigIntegerField()),
                ("since", models.DateTimeField()),
                ("seen_xid", models.BigIntegerField()),
                ("seen_at", models.DateTimeField()),
                ("complete_until", models.DateTimeField(null=True)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("id", 1)), name="one_usage_watermark"
                    )
                ],
            },
        ),
        EnableTenantRLS(
            "tenants_usagebucket", app="SELECT", platform="SELECT, INSERT, UPDATE, DELETE"
        ),
        Grant("tenants_usagewatermark", {"app": "SELECT", "platform": "SELECT, UPDATE"}),
        RoleSQL(WATERMARK, "DELETE FROM tenants_usagewatermark"),
        RoleSQL(FUNCTION, DROP_FUNCTION),
    ]
