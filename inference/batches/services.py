"""What people do with batches on the control plane; callers' own verbs are on the data plane."""

from uuid import UUID

from django.utils import timezone

from audit.services import intent
from inference.batches.selectors import get_batch
from inference.models import Batch, BatchState
from portal.core.actors import Context
from portal.core.errors import Conflict
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require

CANCELLABLE = (BatchState.VALIDATING, BatchState.IN_PROGRESS)


def cancel_batch(*, context: Context, batch_id: UUID) -> Batch:
    """Lets a batch end early: what is answered is kept, and nothing more of it is run.

    Raises:
        Forbidden, NotFound.
        Conflict: it has ended, or is about to.
    """
    require(context, Action.JOB_CANCEL)
    with tenant_scope(context):
        batch = get_batch(batch_id)
        now = timezone.now()
        with intent(
            "batch.cancel",
            object_type="inference.batch",
            object_id=batch.pk,
            object_label=batch.model,
        ):
            cancelled = Batch.objects.filter(pk=batch_id, state__in=CANCELLABLE).update(
                state=BatchState.CANCELLING, cancelling_at=now, wake_at=now
            )
            if not cancelled:
                raise Conflict("The batch has ended, or is about to: it can't be cancelled.")
        return get_batch(batch_id)
