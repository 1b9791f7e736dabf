"""How far the closing of a tenant is."""

from dataclasses import dataclass
from uuid import UUID

from portal.core.actors import Context
from portal.core.errors import NotFound
from tenants.closing import registry
from tenants.models import ClosureStep, TenantClosure
from tenants.permissions import Action, require
from tenants.services.tenants import tenant_or_platform_scope


@dataclass(frozen=True, slots=True)
class Progress:
    """A closing and its steps so far; ``steps_total`` is how many a deletion has."""

    closure: TenantClosure
    steps: tuple[ClosureStep, ...]
    steps_total: int

    @property
    def steps_done(self) -> int:
        return sum(step.finished_at is not None for step in self.steps)

    @property
    def erased(self) -> int:
        """Rows, and files of exports."""
        return sum(step.erased for step in self.steps)


def closing_progress(context: Context, tenant_id: UUID) -> Progress:
    """How far the newest closing of a tenant is.

    Raises:
        Forbidden.
        NotFound: no such tenant, or it was never closed.
    """
    require(context, Action.TENANT_READ)
    with tenant_or_platform_scope(context, tenant_id, reason="a closing is looked at"):
        found = progress_of(tenant_id)
    if found is None:
        raise NotFound("The tenant is not closing.")
    return found


def progress_of(tenant_id: UUID) -> Progress | None:
    """The same, in the open scope; None for a tenant that was never closed."""
    closure = TenantClosure.objects.filter(tenant_id=tenant_id).order_by("-asked_at").first()
    if closure is None:
        return None
    steps = tuple(ClosureStep.objects.filter(closure=closure))
    return Progress(closure, steps, len(registry.erasers()))
