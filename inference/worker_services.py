"""Orders to workers: drain, resume, unload, load.

An order is a change of what the worker's row wants. The worker reads it at its next beat, and so
does the one that is started in its place.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from uuid import UUID

from audit.services import intent
from inference.models import Deployment, DesiredState, Worker, WorkerState
from inference.worker_selectors import get_worker, is_silent, live_workers
from portal.core.actors import Context
from portal.core.errors import Conflict, NotFound
from portal.core.tenancy import platform_scope
from tenants.permissions import Action, require


class WorkerOrder(StrEnum):
    """What a worker can be told.

    ``DRAIN``: finish what runs, claim no more. ``RESUME``: claim again. ``UNLOAD``: drain, then
    release the model; the process stays. ``LOAD``: load as the deployment says now, and serve; a
    worker that holds a model drains and unloads it first.
    """

    DRAIN = "drain"
    RESUME = "resume"
    UNLOAD = "unload"
    LOAD = "load"


_DESIRED = {
    WorkerOrder.DRAIN: DesiredState.DRAINED,
    WorkerOrder.RESUME: DesiredState.SERVING,
    WorkerOrder.UNLOAD: DesiredState.UNLOADED,
    WorkerOrder.LOAD: DesiredState.SERVING,
}


def order_worker(*, context: Context, worker_id: UUID, order: WorkerOrder) -> Worker:
    """Tells one worker.

    Raises:
        Forbidden, NotFound.
        Conflict: the order makes no sense for the worker as it is; the message says why.
    """
    require(context, Action.DEPLOYMENT_EDIT)
    with platform_scope(replace(context, tenant_id=None), reason="a worker is told what to be"):
        Worker.objects.select_for_update().filter(pk=worker_id).first()
        worker = get_worker(worker_id)
        refusal = refusal_of(worker, order)
        if refusal:
            raise Conflict(refusal)
        _tell(worker, order)
    return worker


def order_workers(*, context: Context, deployment_id: UUID, order: WorkerOrder) -> Sequence[Worker]:
    """Tells all live workers of a deployment for which the order makes sense.

    Workers that serve load again one after the other, so that the others go on serving.

    Returns:
        The workers that were told.

    Raises:
        Forbidden, NotFound.
        Conflict: there is none.
    """
    require(context, Action.DEPLOYMENT_EDIT)
    with platform_scope(replace(context, tenant_id=None), reason="workers are told what to be"):
        if not Deployment.objects.filter(pk=deployment_id).exists():
            raise NotFound("There is no such deployment.")
        found = live_workers().filter(deployment=deployment_id).select_for_update(of=("self",))
        told = [w for w in found.select_related("deployment") if not refusal_of(w, order)]
        if not told:
            raise Conflict("No worker of the deployment is up for which that makes sense.")
        for worker in told:
            _tell(worker, order)
    return told


def refusal_of(worker: Worker, order: WorkerOrder) -> str:
    """Why an order makes no sense for a worker as it is; empty where it does."""
    wants = DesiredState(worker.desired_state)
    if worker.state == WorkerState.STOPPED or is_silent(worker):
        back = order in (WorkerOrder.RESUME, WorkerOrder.LOAD) and wants != DesiredState.SERVING
        # What is wanted of the one that is started in its place may be taken back.
        return "" if back else "The worker is not up: start it first."
    if order == WorkerOrder.DRAIN:
        return _refusal_to_drain(worker, wants)
    if order == WorkerOrder.RESUME:
        return _refusal_to_resume(wants)
    if order == WorkerOrder.UNLOAD and wants == DesiredState.UNLOADED:
        return "The worker is unloaded already, or about to be."
    if order == WorkerOrder.LOAD and worker.state == WorkerState.LOADING:
        return "The worker is loading already."
    return ""


def _refusal_to_drain(worker: Worker, wants: DesiredState) -> str:
    if wants == DesiredState.DRAINED:
        return "The worker is drained already, or about to be."
    if wants == DesiredState.UNLOADED:
        return "The worker holds no model: there is nothing to drain."
    if worker.state == WorkerState.FAILED:
        return "The worker's model could not be loaded: there is nothing to drain."
    return ""


def _refusal_to_resume(wants: DesiredState) -> str:
    if wants == DesiredState.SERVING:
        return "The worker is not drained: there is nothing to resume."
    if wants == DesiredState.UNLOADED:
        return "The worker holds no model: load it instead."
    return ""


def _tell(worker: Worker, order: WorkerOrder) -> None:
    with intent(
        f"worker.{order}",
        object_type="inference.worker",
        object_id=worker.id,
        object_label=worker.name,
        detail={"deployment": worker.deployment.name},
    ):
        worker.desired_state = _DESIRED[order]
        if order == WorkerOrder.LOAD:
            worker.load_generation += 1
        worker.save(update_fields=["desired_state", "load_generation"])
