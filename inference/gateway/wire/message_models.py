"""The models as Anthropic's clients read them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from inference.gateway.wire.response import ModelInfo


def models_page(models: Sequence[ModelInfo]) -> bytes:
    """The one page of ``GET /v1/models`` as JSON."""
    return msgspec.json.encode(
        {
            "data": [_model(model) for model in models],
            "has_more": False,
            "first_id": models[0].id if models else None,
            "last_id": models[-1].id if models else None,
        }
    )


def model_object(model: ModelInfo) -> bytes:
    """The object of ``GET /v1/models/{id}`` as JSON."""
    return msgspec.json.encode(_model(model))


def _model(model: ModelInfo) -> dict[str, str]:
    created = datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z")
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": created,
        "lifecycle": "active",
    }
