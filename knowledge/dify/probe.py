"""Whether a workspace of a Dify can be worked with: the keys, the version, what it can do."""

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from knowledge.dify.client import Dify
from knowledge.dify.console_api import GATEWAY_PROVIDER
from knowledge.dify.errors import DifyFault, KeyRefused, NotDify, UnexpectedAnswer
from knowledge.dify.shapes import Workspace

OLDEST: Final = (1, 9, 2)
"""The first version that takes the admin key."""
TOO_NEW: Final = (2, 0, 0)
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_MOST_PAGES: Final = 20


class UnsupportedVersion(DifyFault):
    blames = "base_url"
    code = "dify_version_unsupported"
    status = 400


class ConsoleKeyRefused(DifyFault):
    """Dify does not say whether the key or the workspace is wrong."""

    blames = "console_key"
    code = "dify_console_key_refused"
    status = 400
    sentence = (
        "Dify refuses the console key for this workspace: check the key, the workspace's id, and "
        "that Dify runs with ADMIN_API_KEY_ENABLE=true."
    )


class DatasetKeyRefused(DifyFault):
    blames = "dataset_key"
    code = "dify_dataset_key_refused"
    status = 400
    sentence = "Dify refuses the dataset key: make one in Dify under Knowledge, Service API."


class DatasetKeyElsewhere(DifyFault):
    """What is indexed with it would not be where the console key looks."""

    blames = "dataset_key"
    code = "dify_dataset_key_elsewhere"
    status = 400
    sentence = "The dataset key belongs to another workspace of this Dify: make one in this one."


class Capabilities(msgspec.Struct, frozen=True):
    """What a workspace can do.

    Attributes:
        high_quality: whether it has a model with which knowledge is embedded.
        gateway_provider: whether it has the plugin for models that speak OpenAI's protocol.
        workspaces: how many the instance has.
        licensed: whether the instance itself says that it is licensed.
    """

    high_quality: bool
    gateway_provider: bool
    workspaces: int
    licensed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What was found at a workspace that can be worked with."""

    version: str
    workspace_name: str
    capabilities: Capabilities


def examine(dify: Dify) -> Report:
    """Asks a Dify who it is and tries both keys; changes nothing there.

    Raises:
        DifyFault: it can't be worked with; the sentence says what to do.
    """
    licensed = _licensed(dify)
    version = dify.version
    check_version(version)
    try:
        found = _workspaces(dify)
        keys = dify.console.dataset_keys()
        providers = dify.console.model_providers()
    except KeyRefused as fault:
        raise ConsoleKeyRefused(remote_status=fault.remote_status) from None
    try:
        dify.knowledge.list_datasets(limit=1)
        models = dify.knowledge.embedding_models()
    except KeyRefused as fault:
        raise DatasetKeyRefused(remote_status=fault.remote_status) from None
    if dify.endpoint.dataset_key not in {key.token for key in keys}:
        raise DatasetKeyElsewhere
    own = next((w for w in found if w.id == dify.endpoint.workspace_id), None)
    capabilities = Capabilities(
        high_quality=bool(models),
        gateway_provider=GATEWAY_PROVIDER in providers,
        workspaces=len(found),
        licensed=licensed,
    )
    return Report(version, own.name if own else "", capabilities)


def _licensed(dify: Dify) -> bool:
    try:
        return dify.console.system_features().license.status == "active"
    except UnexpectedAnswer as fault:
        raise NotDify(remote_status=fault.remote_status) from None


def check_version(text: str) -> None:
    """Refuses a version that the portal does not work with.

    Raises:
        NotDify: it is no version.
        UnsupportedVersion: saying which it is, and which would do.
    """
    match = _VERSION.match(text)
    if match is None:
        raise NotDify
    version = tuple(int(part) for part in match.groups())
    if not OLDEST <= version < TOO_NEW:
        change = "upgrade it" if version < OLDEST else "use an instance of version 1"
        raise UnsupportedVersion(
            f"The portal works with Dify from {_text(OLDEST)} up to version 1; this one is "
            f"{_text(version)}: {change}."
        )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _workspaces(dify: Dify) -> list[Workspace]:
    found: list[Workspace] = []
    for number in range(1, _MOST_PAGES + 1):
        page = dify.console.workspaces(page=number)
        found += page.data
        if not page.has_more:
            break
    return found
