import django.db.models.deletion
from django.db import migrations, models

import portal.core.ids
from audit.operations import GovernTable
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, RoleSQL

# What the deletion of a tenant erases, and nobody could delete before.
ERASED = ("tenants_apikey", "tenants_apikeyuse", "tenants_quotawindow", "tenants_quotawarning")

APPEND_ONLY = [
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON tenants_tenantcertificate "
    "FOR EACH ROW EXECUTE FUNCTION audit_refuse_change()",
    "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON tenants_tenantcertificate "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()",
]

# Whoever looked while the tenant was still there waits for the end of its deletion, and is
# refused: the lock is what the deletion's last step takes first.
REFUSE_CLOSED = """
CREATE FUNCTION tenant_refuse_closed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    found text;
BEGIN
    SELECT state INTO found FROM public.tenants_tenant WHERE id = NEW.tenant_id FOR KEY SHARE;
    IF found = 'closed' THEN
        RAISE EXCEPTION 'the tenant is closed' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$
"""
GUARDED = ("tenants_membership", "tenants_apikey", "tenants_quota")
REFUSING = [
    REFUSE_CLOSED,
    "GRANT CREATE ON SCHEMA public TO {platform}",
    "ALTER FUNCTION tenant_refuse_closed() OWNER TO {platform}",
    "REVOKE CREATE ON SCHEMA public FROM {platform}",
    *(
        f"CREATE TRIGGER refuse_closed BEFORE INSERT ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION tenant_refuse_closed()"
        for table in GUARDED
    ),
]
REFUSING_NO_MORE = [
    *(f"DROP TRIGGER refuse_closed ON {table}" for table in GUARDED),
    "SET LOCAL ROLE {platform}",
    "DROP FUNCTION tenant_refuse_closed()",
    "RESET ROLE",
]


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0008_quota_defaults"),
    ]

    operations = [
        migrations.CreateModel(
            name="TenantClosure",
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
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("closing", "Waiting for its grace period to end"),
                            ("deleting", "Being deleted"),
                            ("closed", "Closed"),
                            ("reopened", "Reopened"),
                        ],
                        default="closing",
                        max_length=12,
                        verbose_name="state",
                    ),
                ),
                ("tenant_was", models.CharField(max_length=12)),
                ("reason", models.CharField(max_length=200, verbose_name="reason")),
                ("asked_by_id", models.UUIDField(null=True)),
                ("asked_by", models.CharField(max_length=254, verbose_name="decided by")),
                ("asked_at", models.DateTimeField(verbose_name="decided")),
                ("delete_after", models.DateTimeField(verbose_name="deletion begins after")),
                ("settled_at", models.DateTimeField(null=True, verbose_name="generations settled")),
                (
                    "deletion_began_at",
                    models.DateTimeField(null=True, verbose_name="deletion began"),
                ),
                ("ended_at", models.DateTimeField(null=True, verbose_name="ended")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="closures",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "closing",
                "verbose_name_plural": "closings",
                "ordering": ["-asked_at"],
            },
        ),
        migrations.CreateModel(
            name="TenantCertificate",
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
                ("document", models.TextField()),
                ("sha256", models.CharField(max_length=64, verbose_name="SHA-256")),
                ("pepper", models.PositiveSmallIntegerField()),
                ("seal", models.CharField(max_length=64)),
                ("issued_at", models.DateTimeField(verbose_name="issued")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="certificates",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "closure",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="tenants.tenantclosure",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "closure"), name="one_certificate_a_closure"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ClosureStep",
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
                ("name", models.CharField(max_length=80, verbose_name="what")),
                ("erased", models.BigIntegerField(default=0, verbose_name="erased")),
                ("began_at", models.DateTimeField(verbose_name="began")),
                ("finished_at", models.DateTimeField(null=True, verbose_name="finished")),
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
                    "closure",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="steps",
                        to="tenants.tenantclosure",
                    ),
                ),
            ],
            options={
                "ordering": ["began_at", "id"],
            },
        ),
        migrations.CreateModel(
            name="TenantExport",
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
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("running", "Being made"),
                            ("ready", "Ready"),
                            ("failed", "Failed"),
                            ("deleted", "Deleted"),
                        ],
                        default="waiting",
                        max_length=12,
                        verbose_name="state",
                    ),
                ),
                ("asked_by_id", models.UUIDField(null=True)),
                ("asked_by", models.CharField(max_length=254, verbose_name="asked for by")),
                ("asked_at", models.DateTimeField(verbose_name="asked for")),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("lease_until", models.DateTimeField(null=True)),
                ("part", models.CharField(blank=True, max_length=80)),
                ("rows_done", models.BigIntegerField(default=0, verbose_name="rows written")),
                ("rows_total", models.BigIntegerField(null=True, verbose_name="rows")),
                ("ready_at", models.DateTimeField(null=True, verbose_name="ready")),
                ("expires_at", models.DateTimeField(null=True, verbose_name="deleted after")),
                ("size", models.BigIntegerField(null=True, verbose_name="size")),
                ("sha256", models.CharField(blank=True, max_length=64, verbose_name="SHA-256")),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="exports",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "export",
                "verbose_name_plural": "exports",
                "ordering": ["-asked_at"],
            },
        ),
        migrations.AddConstraint(
            model_name="tenantclosure",
            constraint=models.UniqueConstraint(fields=("tenant", "id"), name="closure_in_tenant"),
        ),
        migrations.AddConstraint(
            model_name="tenantclosure",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "reopened"), _negated=True),
                fields=("tenant",),
                name="one_closure_at_a_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="closurestep",
            constraint=models.UniqueConstraint(
                fields=("tenant", "closure", "name"), name="one_closure_step"
            ),
        ),
        migrations.AddIndex(
            model_name="tenantexport",
            index=models.Index(fields=["tenant", "-asked_at"], name="export_list"),
        ),
        migrations.AddConstraint(
            model_name="tenantexport",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ["waiting", "running"])),
                fields=("tenant",),
                name="one_export_at_a_time",
            ),
        ),
        EnableTenantRLS(
            "tenants_tenantclosure",
            app="SELECT",
            platform="SELECT, INSERT, UPDATE",
            gateway="SELECT",
        ),
        EnableTenantRLS("tenants_closurestep", app="SELECT", platform="SELECT, INSERT, UPDATE"),
        EnableTenantRLS("tenants_tenantcertificate", app="SELECT", platform="SELECT, INSERT"),
        EnableTenantRLS(
            "tenants_tenantexport",
            app="SELECT, INSERT, UPDATE",
            platform="SELECT, INSERT, UPDATE",
            gateway="SELECT",
        ),
        CompositeForeignKey("tenants_closurestep", "closure_id", to="tenants_tenantclosure"),
        CompositeForeignKey("tenants_tenantcertificate", "closure_id", to="tenants_tenantclosure"),
        RoleSQL(
            [f"GRANT DELETE ON {table} TO {{platform}}" for table in ERASED],
            [f"REVOKE DELETE ON {table} FROM {{platform}}" for table in ERASED],
        ),
        RoleSQL(
            APPEND_ONLY,
            [
                "DROP TRIGGER append_only ON tenants_tenantcertificate",
                "DROP TRIGGER append_only_truncate ON tenants_tenantcertificate",
            ],
        ),
        RoleSQL(REFUSING, REFUSING_NO_MORE),
        GovernTable("tenants_tenantclosure", label="tenants.tenantclosure", name="state"),
    ]
