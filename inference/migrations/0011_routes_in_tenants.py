from django.db import migrations

from portal.core.tenancy.operations import EnableTenantRLS, Grant

EDIT = "SELECT, INSERT, UPDATE, DELETE"

# Jobs are admitted inside their tenant: there a name means what its own overrides say, or what
# it means for everyone. The name of a reserved route may tell whom it is for.
SEEN = "NOT reserved OR id IN (SELECT route_id FROM inference_routeoverride)"


class Migration(migrations.Migration):
    dependencies = [("inference", "0010_closing")]

    operations = [
        Grant("inference_routeoverride", {"app": "SELECT"}),
        EnableTenantRLS(
            "inference_route", app="SELECT", gateway="SELECT", platform=EDIT, using=SEEN
        ),
        EnableTenantRLS(
            "inference_routetarget",
            app="SELECT",
            gateway="SELECT",
            platform=EDIT,
            using="route_id IN (SELECT id FROM inference_route)",
        ),
    ]
