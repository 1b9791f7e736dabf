from django.db import migrations

from portal.core.tenancy.operations import RoleSQL

# Dify was told that the portal's models keep to no schema, and a model's credentials are not
# changed there. Without its address a portal is made known anew, with a key and names of its own.
ANEW = "UPDATE knowledge_portalindify SET url = ''"


class Migration(migrations.Migration):
    dependencies = [("knowledge", "0010_vectors")]

    operations = [
        RoleSQL(
            ["SET LOCAL ROLE {platform}", ANEW, "RESET ROLE"],
            ["SET LOCAL ROLE {platform}", ANEW, "RESET ROLE"],
        )
    ]
