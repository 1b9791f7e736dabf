import django.core.validators
import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q

import portal.core.ids
from audit.operations import GovernTable
from portal.core.tenancy.operations import EnableTenantRLS, Grant, RoleSQL

EDIT = "SELECT, INSERT, UPDATE, DELETE"
NAME = django.core.validators.RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9._:-]*\Z",
    "A name has letters, digits, dots, colons, hyphens and underscores, and no others.",
)


def _id() -> tuple[str, models.UUIDField]:
    field = models.UUIDField(
        default=portal.core.ids.uuid7, editable=False, primary_key=True, serialize=False
    )
    return ("id", field)


class Migration(migrations.Migration):
    dependencies = [("inference", "0007_batches"), ("tenants", "0006_usage")]

    operations = [
        # Several enabled deployments of a model are its replicas.
        migrations.RemoveConstraint("deployment", "one_enabled_deployment_a_model"),
        migrations.CreateModel(
            "Route",
            [
                _id(),
                (
                    "name",
                    models.CharField("name", max_length=80, unique=True, validators=[NAME]),
                ),
                ("description", models.TextField("description", blank=True)),
                (
                    "reserved",
                    models.BooleanField(
                        "reserved",
                        default=False,
                        help_text="Only tenants to which an override gives it can call it.",
                    ),
                ),
                ("enabled", models.BooleanField("enabled", default=True)),
                ("created_at", models.DateTimeField("created", auto_now_add=True)),
            ],
            options={
                "verbose_name": "route",
                "verbose_name_plural": "routes",
                "ordering": ["name"],
            },
        ),
        migrations.CreateModel(
            "RouteTarget",
            [
                _id(),
                (
                    "weight",
                    models.PositiveSmallIntegerField(
                        "weight",
                        default=1,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(1000),
                        ],
                    ),
                ),
                (
                    "tier",
                    models.PositiveSmallIntegerField(
                        "tier",
                        default=0,
                        validators=[django.core.validators.MaxValueValidator(9)],
                    ),
                ),
                (
                    "deployment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="route_targets",
                        to="inference.deployment",
                    ),
                ),
                (
                    "route",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="targets",
                        to="inference.route",
                    ),
                ),
            ],
            options={
                "verbose_name": "target",
                "verbose_name_plural": "targets",
                "ordering": ["tier", "-weight", "id"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("route", "deployment"), name="one_target_a_route_and_deployment"
                    ),
                    models.CheckConstraint(
                        condition=Q(weight__gte=1, weight__lte=1000, tier__lte=9),
                        name="target_weight_and_tier_in_range",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            "RouteOverride",
            [
                _id(),
                ("name", models.CharField("name", max_length=80, validators=[NAME])),
                ("created_at", models.DateTimeField("created", auto_now_add=True)),
                (
                    "route",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="overrides",
                        to="inference.route",
                        verbose_name="route",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                        verbose_name="tenant",
                    ),
                ),
            ],
            options={
                "verbose_name": "override",
                "verbose_name_plural": "overrides",
                "ordering": ["name"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "name"), name="one_override_a_tenant_and_name"
                    )
                ],
            },
        ),
        migrations.AddField("jobpayload", "fallbacks", models.JSONField(null=True)),
        # As the other bodies: no condition names it.
        RoleSQL(
            "ALTER TABLE inference_jobpayload ALTER COLUMN fallbacks SET STATISTICS 0",
            "ALTER TABLE inference_jobpayload ALTER COLUMN fallbacks SET STATISTICS DEFAULT",
        ),
        # Names of reserved routes may tell whom they are for: no tenant's role reads them.
        Grant("inference_route", {"gateway": "SELECT", "platform": EDIT}),
        Grant("inference_routetarget", {"gateway": "SELECT", "platform": EDIT}),
        EnableTenantRLS("inference_routeoverride", app="", gateway="SELECT", platform=EDIT),
        GovernTable("inference_route", label="inference.route", name="name", tenant=""),
        GovernTable("inference_routetarget", label="inference.routetarget", tenant=""),
        GovernTable("inference_routeoverride", label="inference.routeoverride", name="name"),
    ]
