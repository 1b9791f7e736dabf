"""Whether the artefacts of registered versions are still what was registered."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgspec
from django.utils import timezone

from audit.models import Category, Outcome
from audit.services import Event, intent, record
from inference.artefacts import FileEntry, FileFault, Progress, file_faults, load_manifest
from inference.models import CheckState, ModelCheck, ModelVersion
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound, PortalError
from portal.core.tenancy import platform_scope
from tenants.permissions import Action, require

_MOST_NAMED = 10


class NotAsRegistered(Invalid):
    """Files of an artefact are not what was registered.

    Args:
        faults: of each such file; none where all of it was exchanged.
    """

    def __init__(self, message: str, faults: Sequence[FileFault] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults)


def verify_model_version(
    *, context: Context, version_id: UUID, progress: Progress | None = None
) -> ModelVersion:
    """Reads every file of a version's artefact, and compares it with manifest and catalogue.

    The catalogue's own record finds an artefact that was exchanged together with its manifest. Of
    many gigabytes this takes minutes, so the outcome is recorded afterwards, not around it.

    Raises:
        Forbidden.
        NotFound: no such version, or its folder is not on this machine.
        NotAsRegistered: naming the files that are missing, corrupt or extra.
    """
    require(context, Action.MODEL_EDIT)
    version = _version(version_id)
    try:
        _compare(version, progress)
    except PortalError as fault:
        _record(context, version, Outcome.FAILURE, fault)
        raise
    _record(context, version, Outcome.SUCCESS)
    return version


def ask_for_check(*, context: Context, version_id: UUID) -> ModelCheck:
    """Has an io worker read a version's files; ``ModelCheck`` tells how far it is.

    Raises:
        Forbidden.
        NotFound: no such version.
        Conflict: its files are being read already.
    """
    require(context, Action.MODEL_EDIT)
    version = _version(version_id)
    with platform_scope(replace(context, tenant_id=None), reason="a check of files is asked for"):
        # The version's row is locked, for there may be no check yet.
        ModelVersion.objects.select_for_update().get(pk=version.pk)
        known = ModelCheck.objects.filter(pk=version.pk).first()
        if known is not None and known.state in (CheckState.WAITING, CheckState.RUNNING):
            raise Conflict("The files of this version are being verified already: wait for it.")
        check = ModelCheck(
            version=version,
            state=CheckState.WAITING,
            asked_at=timezone.now(),
            asked_by=context.actor.label,
            total_bytes=sum(file["size"] for file in (version.files or {}).values()),
        )
        with intent(
            "model.ask_verify",
            object_type="inference.modelversion",
            object_id=version.id,
            object_label=version.sku,
        ):
            check.save(force_insert=known is None, force_update=known is not None)
    return check


def in_words(faults: Sequence[FileFault]) -> str:
    """What is wrong with files, for logs, the trail and the command line."""
    named = [f"{fault.name} is {fault.fault}" for fault in faults[:_MOST_NAMED]]
    more = len(faults) - len(named)
    return ", ".join(named) + (f", and {more} more are not as registered" if more else "")


def _version(version_id: UUID) -> ModelVersion:
    version = ModelVersion.objects.select_related("model").filter(pk=version_id).first()
    if version is None:
        raise NotFound("There is no such model version.")
    return version


def _compare(version: ModelVersion, progress: Progress | None) -> None:
    folder = Path(version.path)
    manifest = load_manifest(folder)
    registered = version.files and msgspec.convert(version.files, dict[str, FileEntry])
    if manifest.digest != version.digest or (registered and registered != manifest.files):
        raise NotAsRegistered(
            f"The artefact in {folder} is not the one that was registered as {version.sku}; "
            "import that one again."
        )
    faults = file_faults(folder, manifest.files, progress)
    if faults:
        raise NotAsRegistered(
            f"In the artefact's folder {folder} {in_words(faults)}; import it again.", faults
        )


def _record(
    context: Context, version: ModelVersion, outcome: Outcome, fault: PortalError | None = None
) -> None:
    detail: dict[str, object] = {"digest": version.digest}
    if isinstance(fault, NotAsRegistered) and fault.faults:
        detail["faults"] = msgspec.to_builtins(fault.faults[:_MOST_NAMED])
    with platform_scope(replace(context, tenant_id=None), reason="a model version is verified"):
        record(
            Event(
                Category.INTENT,
                "model.verify",
                outcome,
                reason=fault.message if fault is not None else "",
                object_type="inference.modelversion",
                object_id=str(version.id),
                object_label=version.sku,
                detail=detail,
            )
        )
