from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# Raises instead of answering NULL: an unscoped query must fail, not return nothing. After a
# transaction the setting reads '' and not NULL.
CURRENT_TENANT = """
CREATE FUNCTION current_tenant() RETURNS uuid LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    setting text := current_setting('portal.tenant_id', true);
BEGIN
    IF setting IS NULL OR setting = '' THEN
        RAISE EXCEPTION 'no tenant scope is open' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN setting::uuid;
END $$
"""

# For the few tables that are read before a tenant is chosen; NULL where none is set.
SETTING_OR_NULL = """
CREATE FUNCTION portal_setting(name text) RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT nullif(current_setting('portal.' || name, true), '')::uuid
$$
"""

ROLES = "{app}, {gateway}, {sealer}, {platform}, {audit_reader}, {audit_reader_all}, {audit_writer}"


class Migration(migrations.Migration):
    initial = True
    dependencies = []

    operations = [
        RoleSQL(
            [
                "REVOKE ALL ON SCHEMA public FROM PUBLIC",
                f"GRANT USAGE ON SCHEMA public TO {ROLES}",
                CURRENT_TENANT,
                SETTING_OR_NULL,
            ],
            [
                "DROP FUNCTION portal_setting(text)",
                "DROP FUNCTION current_tenant()",
                f"REVOKE USAGE ON SCHEMA public FROM {ROLES}",
            ],
        )
    ]
