"""A process that does nothing but take the steps of one batch, to be killed while it is at it."""

import sys
from uuid import UUID

import django

if __name__ == "__main__":
    django.setup()
    from tests.inference.batches.support import step_alone

    tenant_id, batch_id = map(UUID, sys.argv[1:])
    while step_alone(tenant_id, batch_id):
        sys.stdout.write("step\n")
        sys.stdout.flush()
