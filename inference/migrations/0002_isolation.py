from django.db import migrations

from audit.operations import GovernTable
from portal.core.tenancy.operations import CompositeForeignKey, EnableTenantRLS, Grant, RoleSQL

CATALOGUE = (
    "inference_model",
    "inference_modelversion",
    "inference_modelprice",
    "inference_deployment",
)
EDIT = "SELECT, INSERT, UPDATE, DELETE"

# The queue's rows live for seconds and move through states: room on the page and eager vacuum
# keep the claim's index short.
STORAGE = [
    f"ALTER TABLE {table} SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, "
    "autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0)"
    for table in ("inference_job", "inference_jobpayload", "inference_fairshare")
]


class Migration(migrations.Migration):
    dependencies = [
        ("inference", "0001_initial"),
        ("tenants", "0002_isolation"),
        ("audit", "0002_trail"),
    ]

    operations = [
        *(
            Grant(table, {"app": "SELECT", "gateway": "SELECT", "platform": EDIT})
            for table in CATALOGUE
        ),
        Grant(
            "inference_deploymentclock",
            {"platform": "SELECT, INSERT", "gateway": "SELECT, UPDATE"},
        ),
        Grant("inference_worker", {"app": "SELECT", "platform": "SELECT", "gateway": EDIT}),
        EnableTenantRLS(
            "inference_job",
            app="SELECT",
            platform="SELECT",
            gateway="SELECT, INSERT, UPDATE",
        ),
        EnableTenantRLS("inference_jobpayload", app="", platform="SELECT, DELETE", gateway=EDIT),
        EnableTenantRLS(
            "inference_fairshare", app="", platform="SELECT", gateway="SELECT, INSERT, UPDATE"
        ),
        CompositeForeignKey("inference_job", "api_key_id", to="tenants_apikey"),
        CompositeForeignKey(
            "inference_jobpayload", "job_id", to="inference_job", on_delete="CASCADE"
        ),
        RoleSQL(STORAGE, []),
        GovernTable("inference_model", label="inference.model", name="name", tenant=""),
        GovernTable(
            "inference_modelversion", label="inference.modelversion", name="label", tenant=""
        ),
        GovernTable("inference_modelprice", label="inference.modelprice", tenant=""),
        GovernTable("inference_deployment", label="inference.deployment", name="name", tenant=""),
    ]
