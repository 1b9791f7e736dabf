"""How things are kept in step, in a sentence."""

from collections.abc import Mapping
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from knowledge.models import SyncState
from knowledge.sync.planning import Step, Verb, Why

_WHAT: Final[Mapping[tuple[Verb, Why], Promise]] = {
    (Verb.CREATE, Why.NEW): _("is new and will be made in Dify"),
    (Verb.CREATE, Why.ASKED): _("was asked for, and will be made in Dify"),
    (Verb.CREATE, Why.GONE): _("was deleted in Dify and will be made again"),
    (Verb.ADOPT, Why.ASKED): _("was asked for and not answered; it will be looked for first"),
    (Verb.UPDATE, Why.EDITED): _("was changed here and will be sent"),
    (Verb.UPDATE, Why.DRIFTED): _("was changed in Dify and will be put back"),
    (Verb.FOLLOW, Why.INDEXING): _("is being indexed in Dify"),
    (Verb.TAKE, Why.DRIFTED): _("was changed in Dify and will be taken over"),
    (Verb.TAKE, Why.GONE): _("was deleted in Dify; what is here will follow"),
    (Verb.TAKE, Why.STRANGER): _("was added in Dify and will be taken over"),
    (Verb.DELETE, Why.UNWANTED): _("is not wanted in Dify any more and will be deleted there"),
    (Verb.DELETE, Why.STRANGER): _("was added in Dify and will be deleted there"),
    (Verb.FORGET, Why.UNWANTED): _("is in Dify no more and will be forgotten"),
    (Verb.FORGET, Why.GONE): _("is in Dify no more and will be forgotten"),
    (Verb.FORGET, Why.STRANGER): _("is in Dify no more and will be forgotten"),
    (Verb.CONFLICT, Why.DRIFTED): _("was changed in Dify: decide which version holds"),
    (Verb.CONFLICT, Why.GONE): _("was deleted in Dify: decide whether it is made again"),
    (Verb.CONFLICT, Why.STRANGER): _("was added in Dify: decide whether it stays"),
}
KINDS: Final[Mapping[str, Promise]] = {
    "knowledge_base": _("knowledge base"),
    "document": _("document"),
    "app": _("app"),
}
_ASPECTS: Final[Mapping[str, Promise]] = {
    "name": _("name"),
    "content": _("text"),
    "metadata": _("metadata"),
    "enabled": _("switched on"),
    "archived": _("archived"),
    "description": _("description"),
    "retrieval": _("retrieval settings"),
    "technique": _("how it is indexed"),
    "tag": _("the portal's tag"),
    "definition": _("what it does"),
    "live": _("published version"),
    "api": _("can be called"),
    "key": _("key"),
    "portal": _("the portal's model"),
}
COLOURS: Final[Mapping[str, str]] = {
    SyncState.WAITING: "info",
    SyncState.INDEXING: "info",
    SyncState.IN_STEP: "success",
    SyncState.CONFLICT: "warning",
    SyncState.FAILED: "danger",
}


def what_of(step: Step) -> str:
    """What becomes of a step's object, and why."""
    return str(_WHAT[step.verb, step.why])


def aspect_words(aspect: str) -> str:
    """What of an object an aspect is."""
    return str(_ASPECTS.get(aspect, aspect))


def kind_words(kind: str) -> str:
    """What a kind of object is called."""
    return str(KINDS.get(kind, kind))
