"""What becomes of the ids of knowledge bases when an app leaves a workspace, or comes into one."""

import base64
import copy
import re
from typing import Any

from tests.knowledge.dify.recorded import UUID

_SEALED = re.compile(r"sealed:([^:]+):(.+)")


def given_out(dsl: dict[str, Any], workspace_id: str) -> dict[str, Any]:
    """A DSL as it is exported: workflows have the ids encrypted for their workspace."""
    return _with_ids(dsl, lambda found: [_seal(i, workspace_id) for i in found])


def taken_in(dsl: dict[str, Any], workspace_id: str) -> dict[str, Any]:
    """A DSL as it is kept when it is imported: ids that another workspace encrypted are lost.

    What speaks is filled up, as Dify does.
    """
    kept = _with_ids(dsl, lambda found: [i for i in (_open(x, workspace_id) for x in found) if i])
    if "workflow" in kept:
        speech = kept["workflow"]["features"].setdefault("text_to_speech", {"enabled": False})
        kept["workflow"]["features"]["text_to_speech"] = {"voice": "", "language": "", **speech}
    return kept


def _with_ids(dsl: dict[str, Any], change: Any) -> dict[str, Any]:
    changed = copy.deepcopy(dsl)
    for node in changed.get("workflow", {}).get("graph", {}).get("nodes", []):
        if node["data"].get("type") == "knowledge-retrieval":
            node["data"]["dataset_ids"] = change(node["data"]["dataset_ids"])
    return changed


def _seal(dataset_id: str, workspace_id: str) -> str:
    return base64.b64encode(f"sealed:{workspace_id}:{dataset_id}".encode()).decode()


def _open(text: str, workspace_id: str) -> str | None:
    if UUID.fullmatch(text):
        return text
    try:
        match = _SEALED.fullmatch(base64.b64decode(text, validate=True).decode())
    except ValueError:
        return None
    return match[2] if match and match[1] == workspace_id else None
