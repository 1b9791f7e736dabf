"""What a quantized version must be worth before it is served: the quality gate of a model."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec

from audit.services import intent
from inference.artefacts import Manifest
from inference.models import Model, ModelVersion
from inference.quantization.description import DESCRIPTION, Quality, read_description
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.tenancy import platform_scope
from tenants.permissions import Action, require

__all__ = ["measured", "quality_of", "require_quality", "set_quality_gate"]


def quality_of(manifest: Manifest, folder: Any) -> dict[str, Any] | None:
    """What is kept of an artefact's quality with its version; None if it has no packed weights.

    Raises:
        Invalid: its description is damaged or is not the one that the manifest knows.
    """
    if DESCRIPTION not in manifest.files:
        return None
    found = read_description(folder)
    if found is None:
        raise Invalid(f"The artefact's file {folder / DESCRIPTION} is missing; quantize it again.")
    return {
        "method": found.label,
        "origin": found.origin,
        "measured": msgspec.to_builtins(found.quality),
    }


def measured(version: ModelVersion) -> Quality | None:
    """A version's measured quality, if there is one."""
    if version.quality is None or version.quality["measured"] is None:
        return None
    return msgspec.convert(version.quality["measured"], Quality)


def require_quality(version: ModelVersion) -> None:
    """Lets a version pass whose quality reaches its model's gate, or that no portal quantized.

    Weights that a publisher quantized are what the publisher offers: they are not measured against
    weights that nobody here has.

    Raises:
        Conflict: says by how much the version misses, and what to do.
    """
    if version.quality is None or version.quality["origin"] == "publisher":
        return
    found, model = measured(version), version.model
    if found is None:
        raise Conflict(
            f"The version '{version.sku}' was quantized and its quality was never measured; make "
            "its artefact with `manage.py quantize --text FILE` and register that."
        )
    short = model.least_agreement - found.top1_agreement
    over = found.size_ratio - model.most_size
    faults = []
    if short > 0:
        faults.append(
            f"chooses the same token as the unquantized model in {found.top1_agreement:.2%} of "
            f"places, {short * 100:.2f} points below the {model.least_agreement:.2%} of its gate"
        )
    if over > 0:
        faults.append(
            f"takes {found.size_ratio:.3f} of the size in fp32, {over:.3f} above the "
            f"{model.most_size:.3f} of its gate"
        )
    if faults:
        raise Conflict(
            f"The version '{version.sku}' {' and '.join(faults)}. Quantize it with more bits or "
            f"another group size, or set another quality gate for '{model.name}'."
        )


def set_quality_gate(
    *, context: Context, model_id: UUID, least_agreement: float, most_size: float
) -> Model:
    """Sets what quantized versions of a model must be worth to be deployed or enabled.

    What is deployed already goes on.

    Args:
        least_agreement: share of places, 0 to 1, where the likeliest token must be the same as
            the unquantized model's.
        most_size: bytes of weights over their bytes in fp32, above 0 and at most 1.

    Raises:
        Forbidden, NotFound, Invalid.
    """
    require(context, Action.MODEL_EDIT)
    if not 0 <= least_agreement <= 1:
        raise Invalid("'least_agreement' must be from 0 to 1.", param="least_agreement")
    if not 0 < most_size <= 1:
        raise Invalid("'most_size' must be above 0 and at most 1.", param="most_size")
    with platform_scope(replace(context, tenant_id=None), reason="a quality gate is set"):
        model = Model.objects.select_for_update().filter(pk=model_id).first()
        if model is None:
            raise NotFound("There is no such model.")
        with intent(
            "model.set_quality_gate",
            object_type="inference.model",
            object_id=model.id,
            object_label=model.name,
        ):
            model.least_agreement = least_agreement
            model.most_size = most_size
            model.save(update_fields=["least_agreement", "most_size"])
    return model
