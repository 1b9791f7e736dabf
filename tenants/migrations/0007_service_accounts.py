import django.db.models.deletion
import django.db.models.functions.text
from django.conf import settings
from django.db import migrations, models

from audit.operations import GovernTable
from portal.core.tenancy.operations import EnableTenantRLS, RoleSQL

# Whatever a service does: these rows can't come to be.
STAYS_HOME = """
CREATE FUNCTION service_account_stays_home() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of_service boolean := (SELECT u.kind = 'service' FROM public.tenants_user u WHERE u.id = NEW.user_id);
BEGIN
    IF of_service AND TG_TABLE_NAME = 'tenants_membership' THEN
        RAISE EXCEPTION 'a service account is no member' USING ERRCODE = 'check_violation';
    END IF;
    IF of_service AND NOT EXISTS (SELECT 1 FROM public.tenants_serviceaccount s
                                   WHERE s.id = NEW.user_id AND s.tenant_id = NEW.tenant_id) THEN
        RAISE EXCEPTION 'the service account is of another tenant'
              USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$
"""


def _guarded(table: str) -> str:
    return (
        f"CREATE TRIGGER service_account_stays_home BEFORE INSERT OR UPDATE OF user_id, tenant_id "
        f"ON {table} FOR EACH ROW EXECUTE FUNCTION service_account_stays_home()"
    )


GUARDED = ("tenants_membership", "tenants_apikey")


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0006_usage"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="kind",
            field=models.CharField(
                choices=[("person", "Person"), ("service", "Service account")],
                db_default="person",
                default="person",
                max_length=8,
                verbose_name="kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("kind", "person"),
                        models.Q(("email__endswith", "@service.invalid"), _negated=True),
                    ),
                    models.Q(
                        ("email__endswith", "@service.invalid"),
                        ("kind", "service"),
                        ("password__startswith", "!"),
                        ("platform_role__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="service_account_cannot_log_in",
            ),
        ),
        migrations.CreateModel(
            name="ServiceAccount",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        db_column="id",
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="service_account",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("name", models.CharField(max_length=80, verbose_name="name")),
                (
                    "description",
                    models.CharField(blank=True, max_length=400, verbose_name="description"),
                ),
                (
                    "retired_at",
                    models.DateTimeField(blank=True, null=True, verbose_name="retired"),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True, verbose_name="created")),
                (
                    "responsible",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="responsible",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="service_accounts",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "service account",
                "verbose_name_plural": "service accounts",
                "ordering": ["name"],
                "constraints": [
                    models.UniqueConstraint(
                        models.F("tenant"),
                        django.db.models.functions.text.Lower("name"),
                        condition=models.Q(("retired_at", None)),
                        name="one_service_account_a_name",
                    )
                ],
            },
        ),
        EnableTenantRLS("tenants_serviceaccount", app="SELECT, INSERT, UPDATE", platform="SELECT"),
        GovernTable("tenants_serviceaccount", label="tenants.serviceaccount", name="name"),
        RoleSQL(
            [STAYS_HOME, *(_guarded(table) for table in GUARDED)],
            [
                *(f"DROP TRIGGER service_account_stays_home ON {table}" for table in GUARDED),
                "DROP FUNCTION service_account_stays_home()",
            ],
        ),
    ]
