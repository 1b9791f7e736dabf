import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

from audit.operations import GovernTable
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, RoleSQL

# A key arrives before its tenant is known. This answers for one public id, never a list.
FIND_KEY = """
CREATE FUNCTION api_key_by_public_id(wanted text)
RETURNS TABLE (
    id uuid, tenant_id uuid, user_id uuid, name varchar, kind varchar, secret_hmac bytea,
    pepper_version smallint, generation integer, former_secret_hmac bytea,
    former_pepper_version smallint, former_until timestamptz, session_hmac bytea,
    scopes varchar[], allowed_models varchar[], allowed_networks varchar[],
    expires_at timestamptz, revoked_at timestamptz, tenant_state varchar, user_active boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
    SELECT k.id, k.tenant_id, k.user_id, k.name, k.kind, k.secret_hmac, k.pepper_version,
           k.generation, k.former_secret_hmac, k.former_pepper_version, k.former_until,
           k.session_hmac, k.scopes, k.allowed_models, k.allowed_networks, k.expires_at,
           k.revoked_at, t.state, u.is_active
      FROM public.tenants_apikey k
      JOIN public.tenants_tenant t ON t.id = k.tenant_id
      JOIN public.tenants_user u ON u.id = k.user_id
     WHERE k.public_id = wanted
$$
"""

FIND_KEY_BEFORE = """
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


def _replaced(function: str) -> list[str]:
    """What a function returns can't be altered: it is dropped and made anew, with its rights."""
    return [
        "SET LOCAL ROLE {platform}",
        "DROP FUNCTION api_key_by_public_id(text)",
        "RESET ROLE",
        function,
        "REVOKE ALL ON FUNCTION api_key_by_public_id(text) FROM PUBLIC",
        "GRANT CREATE ON SCHEMA public TO {platform}",
        "ALTER FUNCTION api_key_by_public_id(text) OWNER TO {platform}",
        "REVOKE CREATE ON SCHEMA public FROM {platform}",
        "SET LOCAL ROLE {platform}",
        "GRANT EXECUTE ON FUNCTION api_key_by_public_id(text) TO {app}",
        "RESET ROLE",
    ]


# The trail must never hold the former secret's hash either.
UNGOVERN = "DROP TRIGGER audit_row_change ON tenants_apikey"
GOVERN_BEFORE = (
    "CREATE TRIGGER audit_row_change AFTER INSERT OR UPDATE OR DELETE ON tenants_apikey "
    "FOR EACH ROW EXECUTE FUNCTION audit_row_change("
    "'tenants.apikey', 'tenant_id', 'name', 'secret_hmac,session_hmac', '')"
)


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0003_ledger_statistics"),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiKeyUse",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id",
                        "api_key_id",
                        "generation",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "api_key",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="uses",
                        to="tenants.apikey",
                    ),
                ),
                ("generation", models.PositiveIntegerField()),
                ("last_used_at", models.DateTimeField(verbose_name="last used")),
            ],
            options={"ordering": ["-generation"]},
        ),
        migrations.AddField(
            model_name="apikey",
            name="allowed_networks",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=43),
                blank=True,
                help_text="Empty means from anywhere.",
                null=True,
                size=None,
                verbose_name="networks",
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="former_pepper_version",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="former_secret_hmac",
            field=models.BinaryField(null=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="former_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="generation",
            field=models.PositiveIntegerField(db_default=1, verbose_name="generation"),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("former_pepper_version__isnull", True),
                        ("former_secret_hmac__isnull", True),
                        ("former_until__isnull", True),
                    ),
                    models.Q(
                        ("former_pepper_version__isnull", False),
                        ("former_secret_hmac__isnull", False),
                        ("former_until__isnull", False),
                        ("generation__gt", 1),
                    ),
                    _connector="OR",
                ),
                name="former_secret_is_whole",
            ),
        ),
        EnableTenantRLS(
            "tenants_apikeyuse",
            app="SELECT, INSERT, UPDATE",
            platform="SELECT",
            gateway="SELECT, INSERT, UPDATE",
        ),
        CompositeForeignKey(
            "tenants_apikeyuse", "api_key_id", to="tenants_apikey", on_delete="CASCADE"
        ),
        RoleSQL(_replaced(FIND_KEY), _replaced(FIND_KEY_BEFORE)),
        RoleSQL(UNGOVERN, GOVERN_BEFORE),
        GovernTable(
            "tenants_apikey",
            label="tenants.apikey",
            name="name",
            redact=("secret_hmac", "former_secret_hmac", "session_hmac"),
        ),
    ]
