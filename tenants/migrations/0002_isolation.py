from django.db import migrations

from audit.operations import GovernTable
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, Grant, RoleSQL

OWN_ROW = """
CASE WHEN portal_setting('tenant_id') IS NOT NULL THEN id = portal_setting('tenant_id')
     ELSE id IN (SELECT m.tenant_id FROM tenants_membership m
                  WHERE m.user_id = portal_setting('user_id')) END
"""

# One policy: two beside each other would both be evaluated, and current_tenant() raises.
OWN_MEMBERSHIPS = """
CASE WHEN portal_setting('tenant_id') IS NULL AND portal_setting('user_id') IS NOT NULL
     THEN user_id = portal_setting('user_id')
     ELSE tenant_id = (SELECT current_tenant()) END
"""

# A key arrives before its tenant is known. This answers for one public id, never a list.
FIND_KEY = """
CREATE FUNCTION api_key_by_public_id(wanted text)
RETURNS TABLE (
    id uuid, tenant_id uuid, user_id uuid, name varchar, kind varchar, secret_hmac bytea,
    pepper_version smallint, session_hmac bytea, scopes varchar[], allowed_models varchar[],
    expires_at timestamptz, revoked_at timestamptz, tenant_state varchar, user_active boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT k.id, k.tenant_id, k.user_id, k.name, k.kind, k.secret_hmac, k.pepper_version,
           k.session_hmac, k.scopes, k.allowed_models, k.expires_at, k.revoked_at,
           t.state, u.is_active
      FROM public.tenants_apikey k
      JOIN public.tenants_tenant t ON t.id = k.tenant_id
      JOIN public.tenants_user u ON u.id = k.user_id
     WHERE k.public_id = wanted
$$
"""

APPEND_ONLY = [
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON tenants_ledgerentry "
    "FOR EACH ROW EXECUTE FUNCTION audit_refuse_change()",
    "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON tenants_ledgerentry "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()",
]

# Every update must stay on its page (a heap-only tuple), so pages are left half empty.
STORAGE = (
    "ALTER TABLE tenants_quotawindow SET (fillfactor = 50, "
    "autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0)"
)

SECRET = ("secret_hmac", "session_hmac")


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0001_initial"),
        ("audit", "0002_trail"),
        ("core", "0001_current_tenant"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("sessions", "0001_initial"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        EnableTenantRLS(
            "tenants_tenant",
            app="SELECT",
            platform="SELECT, INSERT, UPDATE",
            gateway="SELECT",
            using=OWN_ROW,
        ),
        EnableTenantRLS("tenants_membership", gateway="SELECT", using=OWN_MEMBERSHIPS),
        EnableTenantRLS("tenants_apikey", app="SELECT, INSERT, UPDATE", gateway="SELECT"),
        EnableTenantRLS(
            "tenants_tenantdatakey",
            app="SELECT",
            platform="SELECT, INSERT, DELETE",
            gateway="SELECT",
        ),
        EnableTenantRLS("tenants_quota", gateway="SELECT"),
        EnableTenantRLS("tenants_quotawindow", app="SELECT, INSERT", gateway="SELECT, UPDATE"),
        EnableTenantRLS(
            "tenants_ledgerentry", app="SELECT", platform="SELECT", gateway="SELECT, INSERT"
        ),
        Grant(
            "tenants_user",
            {"app": "SELECT, INSERT, UPDATE", "platform": "SELECT, INSERT, UPDATE"},
        ),
        RoleSQL(
            "GRANT SELECT (id, is_active, email) ON tenants_user TO {gateway}",
            "REVOKE SELECT (id, is_active, email) ON tenants_user FROM {gateway}",
        ),
        Grant("django_session", {"app": "SELECT, INSERT, UPDATE, DELETE"}),
        Grant("django_content_type", {"app": "SELECT"}),
        Grant("django_migrations", {"app": "SELECT"}),
        CompositeForeignKey("tenants_quota", "api_key_id", to="tenants_apikey"),
        CompositeForeignKey(
            "tenants_quotawindow", "quota_id", to="tenants_quota", on_delete="CASCADE"
        ),
        RoleSQL(
            [
                FIND_KEY,
                "REVOKE ALL ON FUNCTION api_key_by_public_id(text) FROM PUBLIC",
                "GRANT CREATE ON SCHEMA public TO {platform}",
                "ALTER FUNCTION api_key_by_public_id(text) OWNER TO {platform}",
                "REVOKE CREATE ON SCHEMA public FROM {platform}",
                "SET LOCAL ROLE {platform}",
                "GRANT EXECUTE ON FUNCTION api_key_by_public_id(text) TO {app}",
                "RESET ROLE",
            ],
            [
                "SET LOCAL ROLE {platform}",
                "DROP FUNCTION api_key_by_public_id(text)",
                "RESET ROLE",
            ],
        ),
        RoleSQL(
            [*APPEND_ONLY, STORAGE],
            [
                "DROP TRIGGER append_only ON tenants_ledgerentry",
                "DROP TRIGGER append_only_truncate ON tenants_ledgerentry",
            ],
        ),
        GovernTable("tenants_tenant", label="tenants.tenant", name="name", tenant="id"),
        GovernTable(
            "tenants_user",
            label="tenants.user",
            name="email",
            tenant="",
            redact=["password"],
            ignore=["last_login"],
        ),
        GovernTable("tenants_membership", label="tenants.membership", name="role"),
        GovernTable("tenants_apikey", label="tenants.apikey", name="name", redact=SECRET),
        GovernTable("tenants_quota", label="tenants.quota"),
        GovernTable("tenants_tenantdatakey", label="tenants.tenantdatakey", redact=["wrapped"]),
    ]
