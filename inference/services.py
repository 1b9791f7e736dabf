"""Verbs of the catalogue, which belongs to the platform and to no tenant."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from audit.services import intent
from inference.artefacts import Manifest, load_manifest
from inference.artefacts.store import same_prompts
from inference.engines.abilities import check_task
from inference.engines.checking import check_options
from inference.models import (
    Deployment,
    DeploymentClock,
    JobState,
    Model,
    ModelPrice,
    ModelVersion,
    QueueForecast,
    Task,
    Worker,
)
from inference.quality_services import quality_of, require_quality
from inference.worker_selectors import holding_workers, live_workers
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.tenancy import platform_scope
from tenants.permissions import Action, require

_MOST_MICROS = 10**15
_ARTEFACT = re.compile(r"[A-Za-z0-9_-]{1,64}")


@contextmanager
def _catalogue(context: Context, reason: str) -> Iterator[None]:
    """The platform's scope; what is recorded stands in the platform's trail."""
    with platform_scope(replace(context, tenant_id=None), reason=reason):
        yield


def register_model_version(
    *,
    context: Context,
    name: str,
    label: str,
    manifest: Manifest,
    path: Path,
    title: str = "",
    description: str = "",
    task: Task | None = None,
) -> ModelVersion:
    """Enters an imported artefact as a version of a model, which is made where there is none.

    The same artefact under the same label again changes nothing.

    Args:
        name: what callers put into ``model``.
        label: the version's name, such as ``"1"``.
        path: the artefact's folder.
        task: what the model does, by its artefact if not given; all of its versions do the same.

    Raises:
        Forbidden, Invalid.
        Conflict: the label stands for another artefact, or the model does something else.
    """
    require(context, Action.MODEL_EDIT)
    task = task or task_of(manifest)
    with _catalogue(context, "a model version is registered"):
        model = Model.objects.filter(name=name).first() or Model(
            name=name, title=title or name, description=description, task=task
        )
        if model.task != task:
            raise Conflict(
                f"The model '{name}' does something else: it {model.get_task_display()}."
            )
        known = ModelVersion.objects.filter(model__name=name, label=label).first()
        if known is not None:
            if known.digest != manifest.digest:
                raise Conflict(f"The version '{label}' of '{name}' is another artefact.")
            return known
        version = ModelVersion(
            model=model,
            label=label,
            digest=manifest.digest,
            path=str(path),
            architecture=manifest.architecture,
            quantization=manifest.quantization,
            context_length=manifest.context_length,
            licence=manifest.licence,
            format=manifest.format,
            provenance=manifest.provenance,
            files=msgspec.to_builtins(manifest.files),
            quality=quality_of(manifest, path),
        )
        _check(model)
        _check(version, "model")
        with intent(
            "model.register_version",
            object_type="inference.modelversion",
            object_id=version.id,
            object_label=version.sku,
            detail={
                "digest": manifest.digest,
                "provenance": manifest.provenance,
                "task": model.task,
            },
        ):
            if model._state.adding:
                model.save(force_insert=True)
            version.save(force_insert=True)
    return version


def task_of(manifest: Manifest) -> Task:
    """What an artefact's model does."""
    if manifest.embedding is None:
        return Task.GENERATE
    return Task.RERANK if manifest.embedding.pairs else Task.EMBED


def register_artefact(
    *,
    context: Context,
    name: str,
    label: str,
    artefact: str,
    title: str = "",
    description: str = "",
) -> ModelVersion:
    """Enters an artefact of this installation's store, by the name of its folder, as a version.

    Raises:
        Forbidden, Conflict: see ``register_model_version``.
        Invalid: no such artefact, or a damaged one.
    """
    require(context, Action.MODEL_EDIT)
    folder = env().freehold_data_dir / "models" / artefact
    try:
        if not _ARTEFACT.fullmatch(artefact):
            raise NotFound(f"There is no artefact '{artefact}'.")
        manifest = load_manifest(folder)
    except (NotFound, Invalid) as fault:
        raise Invalid(fault.message, param="artefact") from None
    return register_model_version(
        context=context,
        name=name,
        label=label,
        manifest=manifest,
        path=folder,
        title=title,
        description=description,
    )


def edit_model(
    *,
    context: Context,
    model_id: UUID,
    title: str | None = None,
    description: str | None = None,
) -> Model:
    """Changes what people read of a model; its name is what callers use, and stays.

    Raises:
        Forbidden, NotFound, Invalid: naming the field that is wrong.
    """
    require(context, Action.MODEL_EDIT)
    with _catalogue(context, "a model is edited"):
        model = Model.objects.select_for_update().filter(pk=model_id).first()
        if model is None:
            raise NotFound("There is no such model.")
        if title is not None:
            model.title = title
        if description is not None:
            model.description = description
        _check(model)
        with intent(
            "model.edit",
            object_type="inference.model",
            object_id=model.id,
            object_label=model.name,
        ):
            model.save(update_fields=["title", "description"])
    return model


def set_price(
    *,
    context: Context,
    version_id: UUID,
    prompt_micros_per_million: int,
    completion_micros_per_million: int,
    currency: str = "USD",
    effective_from: datetime | None = None,
) -> ModelPrice:
    """Sets what a version costs from a moment on, now if not given.

    Prices are micro-units of currency a million tokens. What was reserved before keeps its price.

    Raises:
        Forbidden, NotFound, Invalid.
        Conflict: there is a price from that very moment.
    """
    require(context, Action.MODEL_EDIT)
    for param, value in (
        ("prompt_micros_per_million", prompt_micros_per_million),
        ("completion_micros_per_million", completion_micros_per_million),
    ):
        if not 0 <= value <= _MOST_MICROS:
            raise Invalid(f"'{param}' must be from 0 to {_MOST_MICROS}.", param=param)
    if len(currency) != 3 or not (currency.isascii() and currency.isupper()):
        raise Invalid("'currency' must be a code of three letters, such as USD.", param="currency")
    with _catalogue(context, "a price is set"):
        version = _version(version_id)
        price = ModelPrice(
            version=version,
            effective_from=effective_from or timezone.now(),
            prompt_micros_per_million=prompt_micros_per_million,
            completion_micros_per_million=completion_micros_per_million,
            currency=currency,
        )
        with intent(
            "model.set_price",
            object_type="inference.modelprice",
            object_id=price.id,
            object_label=version.sku,
        ):
            _insert(price, "There is already a price from that moment.")
    return price


def create_deployment(
    *,
    context: Context,
    name: str,
    version_id: UUID,
    queue: str | None = None,
    engine: str = "auto",
    options: Mapping[str, Any] | None = None,
    context_length: int | None = None,
    default_max_tokens: int = 1024,
    enabled: bool = True,
) -> Deployment:
    """Serves a version on a queue; workers that consume the queue are its pool.

    Args:
        queue: the Celery queue; the deployment's name if not given.
        context_length: tokens a request may take; the version's own if not given.

    Raises:
        Forbidden, NotFound, Invalid: naming the field that is wrong.
        Conflict: name or queue are taken; the version's quality is below the model's gate.
    """
    require(context, Action.DEPLOYMENT_EDIT)
    with _catalogue(context, "a deployment is made"):
        version = _version(version_id)
        check_task(engine, version.model.task)
        check_options(engine, options or {}, model_format=version.format)
        require_quality(version)
        deployment = Deployment(
            name=name,
            model=version.model,
            version=version,
            queue=queue or name,
            engine=engine,
            options=dict(options or {}),
            context_length=context_length or version.context_length,
            default_max_tokens=default_max_tokens,
            enabled=enabled,
        )
        _check_lengths(deployment)
        _check(deployment, "model", "version")
        with intent(
            "deployment.create",
            object_type="inference.deployment",
            object_id=deployment.id,
            object_label=name,
            detail={"version": version.sku},
        ):
            _insert(deployment, "The name or the queue is taken.")
            DeploymentClock.objects.create(deployment=deployment)
    return deployment


def edit_deployment(
    *,
    context: Context,
    deployment_id: UUID,
    version_id: UUID | None = None,
    engine: str | None = None,
    options: Mapping[str, Any] | None = None,
    context_length: int | None = None,
    default_max_tokens: int | None = None,
) -> Deployment:
    """Changes what is given; a worker that holds the model follows when it loads again.

    Args:
        version_id: another version of the same model. Prices are the new one's at once.

    Raises:
        Forbidden, NotFound, Invalid: naming the field that is wrong.
        Conflict: the version reads prompts in another way, and the deployment is in use.
    """
    require(context, Action.DEPLOYMENT_EDIT)
    with _catalogue(context, "a deployment is edited"):
        deployment = _locked(deployment_id)
        if version_id is not None:
            _switch(deployment, _version(version_id))
        if engine is not None:
            check_task(engine, deployment.model.task)
            deployment.engine = engine
        if options is not None:
            deployment.options = dict(options)
        if any(given is not None for given in (engine, options, version_id)):
            check_options(
                deployment.engine, deployment.options, model_format=deployment.version.format
            )
        if context_length is not None:
            deployment.context_length = context_length
        if default_max_tokens is not None:
            deployment.default_max_tokens = default_max_tokens
        _check_lengths(deployment)
        _check(deployment, "model", "version")
        with intent(
            "deployment.edit",
            object_type="inference.deployment",
            object_id=deployment.id,
            object_label=deployment.name,
        ):
            deployment.save(
                update_fields=[
                    "version",
                    "engine",
                    "options",
                    "context_length",
                    "default_max_tokens",
                ]
            )
    return deployment


def delete_deployment(*, context: Context, deployment_id: UUID) -> None:
    """Deletes a deployment that has never served a job.

    Raises:
        Forbidden, NotFound.
        Conflict: it has had jobs, routes lead to it, or a worker is up.
    """
    require(context, Action.DEPLOYMENT_EDIT)
    with _catalogue(context, "a deployment is deleted"):
        deployment = _locked(deployment_id)
        if deployment.jobs.exists():
            raise Conflict("It has had jobs, which must go on naming it: disable it instead.")
        if deployment.route_targets.exists():
            raise Conflict("Routes lead to the deployment: take it out of them first.")
        if live_workers().filter(deployment=deployment).exists():
            raise Conflict("Workers of the deployment are up: stop them first.")
        with intent(
            "deployment.delete",
            object_type="inference.deployment",
            object_id=deployment.id,
            object_label=deployment.name,
        ):
            for rows in (Worker, DeploymentClock, QueueForecast):
                rows.objects.filter(deployment=deployment).delete()
            # Row by row: the shares of tenants are none, and not the platform's to delete.
            found = Deployment.objects.filter(pk=deployment.pk)
            found._raw_delete(found.db)


def set_deployment_enabled(*, context: Context, deployment_id: UUID, enabled: bool) -> Deployment:
    """Lets calls be admitted to a deployment, or refuses new ones; jobs under way go on.

    Calls of a model that has several enabled deployments are shared among them.

    Raises:
        Forbidden, NotFound.
        Conflict: enabled, and the version's quality is below the model's gate.
    """
    require(context, Action.DEPLOYMENT_EDIT)
    with _catalogue(context, "a deployment is enabled or disabled"):
        deployment = _locked(deployment_id)
        if enabled:
            require_quality(deployment.version)
        with intent(
            "deployment.enable" if enabled else "deployment.disable",
            object_type="inference.deployment",
            object_id=deployment.id,
            object_label=deployment.name,
        ):
            deployment.enabled = enabled
            deployment.save(update_fields=["enabled"])
    return deployment


def _switch(deployment: Deployment, version: ModelVersion) -> None:
    """Puts another version into a deployment, not saved.

    Prompts wait as tokens of the version that they were admitted for, so a version with another
    vocabulary or template is taken only while nothing waits and no worker holds the old one.
    """
    if version.model_id != deployment.model_id:
        raise Invalid("'version_id' is a version of another model.", param="version_id")
    require_quality(version)
    if not same_prompts(Path(deployment.version.path), Path(version.path)):
        open_jobs = deployment.jobs.filter(state__in=(JobState.QUEUED, JobState.RUNNING))
        if open_jobs.exists() or holding_workers(deployment).exists():
            raise Conflict(
                "The version reads prompts in another way: disable the deployment, wait until "
                "its jobs have ended, and unload its workers first."
            )
    deployment.version = version


def _check_lengths(deployment: Deployment) -> None:
    most = deployment.version.context_length
    if not 0 < deployment.context_length <= most:
        raise Invalid(f"'context_length' must be from 1 to {most}.", param="context_length")
    if not 0 < deployment.default_max_tokens <= deployment.context_length:
        raise Invalid(
            f"'default_max_tokens' must be from 1 to {deployment.context_length}.",
            param="default_max_tokens",
        )


def _check(row: models.Model, *exclude: str) -> None:
    try:
        row.clean_fields(exclude=exclude)
    except ValidationError as fault:
        param, messages = next(iter(fault.message_dict.items()))
        raise Invalid(f"'{param}': {messages[0]}", param=param) from None


def _insert(row: models.Model, taken: str) -> None:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise Conflict(taken) from None


def _version(version_id: UUID) -> ModelVersion:
    version = ModelVersion.objects.select_related("model").filter(pk=version_id).first()
    if version is None:
        raise NotFound("There is no such model version.")
    return version


def _locked(deployment_id: UUID) -> Deployment:
    deployment = (
        Deployment.objects.select_for_update(of=("self",))
        .select_related("version__model")
        .filter(pk=deployment_id)
        .first()
    )
    if deployment is None:
        raise NotFound("There is no such deployment.")
    return deployment
