"""Whether the artefacts of registered versions are still what was registered."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgspec

from audit.models import Category, Outcome
from audit.services import Event, record
from inference.artefacts import FileEntry, Progress, verify
from inference.models import ModelVersion
from portal.core.actors import Context
from portal.core.errors import Invalid, NotFound, PortalError
from portal.core.tenancy import platform_scope
from tenants.permissions import Action, require


def verify_model_version(
    *, context: Context, version_id: UUID, progress: Progress | None = None
) -> ModelVersion:
    """Reads every file of a version's artefact, and compares it with manifest and catalogue.

    The catalogue's own record finds an artefact that was exchanged together with its manifest. Of
    many gigabytes this takes minutes, so the outcome is recorded afterwards, not around it.

    Raises:
        Forbidden.
        NotFound: no such version, or its folder is not on this machine.
        Invalid: naming the first file that is missing or differs.
    """
    require(context, Action.MODEL_EDIT)
    version = ModelVersion.objects.select_related("model").filter(pk=version_id).first()
    if version is None:
        raise NotFound("There is no such model version.")
    try:
        _compare(version, progress)
    except PortalError as fault:
        _record(context, version, Outcome.FAILURE, fault.message)
        raise
    _record(context, version, Outcome.SUCCESS)
    return version


def _compare(version: ModelVersion, progress: Progress | None) -> None:
    manifest = verify(Path(version.path), progress)
    registered = version.files and msgspec.convert(version.files, dict[str, FileEntry])
    if manifest.digest != version.digest or (registered and registered != manifest.files):
        raise Invalid(
            f"The artefact in {version.path} is not the one that was registered as {version.sku}; "
            "import that one again."
        )


def _record(context: Context, version: ModelVersion, outcome: Outcome, reason: str = "") -> None:
    with platform_scope(replace(context, tenant_id=None), reason="a model version is verified"):
        record(
            Event(
                Category.INTENT,
                "model.verify",
                outcome,
                reason=reason,
                object_type="inference.modelversion",
                object_id=str(version.id),
                object_label=version.sku,
                detail={"digest": version.digest},
            )
        )
