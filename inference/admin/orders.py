"""Pages that ask before workers are told to drain, resume, unload or load."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from inference.admin.platform import deployment_link
from inference.models import Deployment, Worker
from inference.worker_services import WorkerOrder, order_worker, order_workers
from portal.core.pages import FormPage, ServiceForm, Text, context_of
from tenants.permissions import Action

Words = tuple[Text, Text, Text]
"""Title of the page, its button, and what it says before."""

_ONE: dict[WorkerOrder, Words] = {
    WorkerOrder.DRAIN: (
        _("Drain"),
        _("Drain worker"),
        _("It finishes what runs and claims no more, until it is resumed; the model stays loaded."),
    ),
    WorkerOrder.RESUME: (
        _("Resume"),
        _("Resume worker"),
        _("It claims jobs again."),
    ),
    WorkerOrder.UNLOAD: (
        _("Unload"),
        _("Unload worker"),
        _("It finishes what runs, then releases the model's memory; the process stays."),
    ),
    WorkerOrder.LOAD: (
        _("Load"),
        _("Load worker"),
        _(
            "It loads the model as the deployment says now, and serves. A worker that holds a "
            "model finishes what runs first."
        ),
    ),
}
_ALL: dict[WorkerOrder, Words] = {
    WorkerOrder.LOAD: (
        _("Load all"),
        _("Load all workers"),
        _(
            "Each loads the model as the deployment says now; those that serve one after the "
            "other, so that the others go on."
        ),
    ),
    WorkerOrder.RESUME: (
        _("Resume all"),
        _("Resume all workers"),
        _("All drained workers claim jobs again."),
    ),
    WorkerOrder.DRAIN: (
        _("Drain all"),
        _("Drain all workers"),
        _(
            "They finish what runs and claim no more. Calls are still admitted, and wait until "
            "their deadline: disable the deployment if they should not."
        ),
    ),
    WorkerOrder.UNLOAD: (
        _("Unload all"),
        _("Unload all workers"),
        _(
            "They finish what runs, then release the model's memory. Calls are still admitted, and "
            "wait until their deadline: disable the deployment if they should not."
        ),
    ),
}
_GRAVE = (WorkerOrder.DRAIN, WorkerOrder.UNLOAD)
_DONE = _("The order is given; the worker follows within seconds.")


def _form(order: WorkerOrder, words: Words, submit: Callable[..., str]) -> FormPage:
    title, button, intro = words
    return FormPage(
        order.value,
        Action.DEPLOYMENT_EDIT,
        title,
        ServiceForm,
        submit,
        button=button,
        intro=intro,
        done=_DONE,
        danger=order in _GRAVE,
    )


def _one(order: WorkerOrder) -> FormPage:
    def submit(request: HttpRequest, worker: Worker, _data: dict[str, Any]) -> str:
        order_worker(context=context_of(request), worker_id=worker.pk, order=order)
        return deployment_link(worker.deployment_id)

    return _form(order, _ONE[order], submit)


def _all(order: WorkerOrder) -> FormPage:
    def submit(request: HttpRequest, deployment: Deployment, _data: dict[str, Any]) -> str:
        order_workers(context=context_of(request), deployment_id=deployment.pk, order=order)
        return deployment_link(deployment.pk)

    return _form(order, _ALL[order], submit)


def worker_pages() -> tuple[FormPage, ...]:
    """Orders to one worker."""
    return tuple(_one(order) for order in _ONE)


def all_worker_pages() -> tuple[FormPage, ...]:
    """Orders to all workers of a deployment."""
    return tuple(_all(order) for order in _ALL)
