"""Verbs of knowledge bases."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from inference.models import Task
from knowledge.accounts import own_key
from knowledge.applications.selectors import apps_using
from knowledge.events import KnowledgeEvent
from knowledge.models import Connection, Document, DocumentState, KnowledgeBase, Method
from knowledge.models.bases import MOST_NAME_CHARS, MOST_TOP_K
from knowledge.selectors import served_models
from knowledge.sync.users import refuse_if_used
from knowledge.sync.wakes import wake
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import clean_text, require_tenant

MOST_TEMPLATE_CHARS: Final = 8000
PLACES: Final = ("{{context}}", "{{query}}")
"""What a prompt template must hold: where the passages go, and where the question."""


def create_knowledge_base(*, context: Context, name: str, **settings: Any) -> KnowledgeBase:
    """Makes a knowledge base in the context's tenant.

    Args:
        settings: of ``edit_knowledge_base``. Without an ``embedding_model`` it gets one that is
            served, and with that is searched by meaning and full text; where none is, by full
            text alone.

    Raises:
        Forbidden: the caller may not.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    tenant_id = require_tenant(context)
    with tenant_scope(context):
        if settings.get("embedding_model") is None:
            settings["embedding_model"] = next(iter(served_models(Task.EMBED)), "")
        default = Method.HYBRID if settings["embedding_model"] else Method.FULL_TEXT
        settings.setdefault("method", default)
        base = KnowledgeBase(tenant_id=tenant_id, created_by_id=context.user_id)
        _apply(base, {"name": name, **settings})
        _give_key(context, base)
        with intent_about(KnowledgeEvent.CREATE, base):
            _write(base, force_insert=True)
            wake(base.connection_id)
    return base


def edit_knowledge_base(
    *, context: Context, knowledge_base_id: UUID, **changes: Any
) -> KnowledgeBase:
    """Changes what is given and leaves the rest.

    Another embedding model has every document indexed anew; until that is done it is found by
    its words.

    Args:
        changes: ``name`` (1 to 40 characters), ``description``, ``method``, ``top_k`` (1 to 50),
            ``score_threshold`` (0 to 1, or None), ``embedding_model`` and ``rerank_model`` (empty
            for none), ``prompt_template`` (with ``{{context}}`` and ``{{query}}``),
            ``connection_id`` (where it stands too, or None; where it stood it is deleted).

    Raises:
        Forbidden: the caller may not.
        NotFound: no such knowledge base here.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken, or apps use it where it is to be deleted.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        base = locked_base(knowledge_base_id)
        embedded_by, stood_at = base.embedding_model, base.connection_id
        _apply(base, changes)
        if stood_at is not None and base.connection_id != stood_at:
            refuse_if_used(base, stood_at)
        _give_key(context, base)
        with intent_about(KnowledgeEvent.EDIT, base):
            _write(base)
            wake(stood_at, local_id=base.pk)
            wake(base.connection_id, local_id=base.pk)
            if base.embedding_model != embedded_by:
                _index_all(base)
    return base


def delete_knowledge_base(*, context: Context, knowledge_base_id: UUID) -> None:
    """Deletes a knowledge base with its documents, their versions and passages.

    Where it stands in Dify it is deleted there soon after.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such knowledge base here.
        Conflict: a published app searches it.
        InUse: apps in Dify search it.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        base = locked_base(knowledge_base_id)
        refuse_used_base(base)
        refuse_if_used(base, base.connection_id)
        with intent_about(KnowledgeEvent.DELETE, base):
            KnowledgeBase.objects.filter(pk=base.pk).delete()
            wake(base.connection_id, local_id=base.pk)


def locked_base(knowledge_base_id: UUID) -> KnowledgeBase:
    """A knowledge base of the open scope's tenant, locked until the scope ends.

    Raises:
        NotFound: none.
    """
    found = KnowledgeBase.objects.select_for_update().filter(pk=knowledge_base_id).first()
    if found is None:
        raise NotFound("There is no such knowledge base.")
    return found


def refuse_used_base(base: KnowledgeBase) -> None:
    """Whoever deletes a knowledge base asks here first, with its row locked.

    Raises:
        Conflict: published apps search it; the sentence names them.
    """
    using = apps_using(base.pk)
    if using:
        names = ", ".join(app.name for app in using[:5])
        raise Conflict(
            f"Apps use this knowledge base: {names}. Withdraw them, or publish versions without it "
            "first.",
            code="knowledge_base_in_use",
            data={"apps": [app.slug for app in using]},
        )


def _write(base: KnowledgeBase, *, force_insert: bool = False) -> None:
    try:
        with transaction.atomic():
            base.save(force_insert=force_insert)
    except IntegrityError:
        raise Conflict(
            "There is already a knowledge base of this name.",
            code="knowledge_base_name_taken",
            param="name",
        ) from None


def _give_key(context: Context, base: KnowledgeBase) -> None:
    """Whatever calls a model is charged to somebody; one key does for the whole tenant."""
    if not (base.embedding_model or base.rerank_model):
        return
    others = KnowledgeBase.objects.exclude(api_key=None).order_by("-id")
    known = base.api_key_id or others.values_list("api_key_id", flat=True).first()
    base.api_key = own_key(context, known)


def _index_all(base: KnowledgeBase) -> None:
    # Those that are being read already will be embedded by the new model.
    Document.objects.filter(knowledge_base_id=base.pk, version__gt=0).exclude(
        state=DocumentState.WAITING
    ).update(
        state=DocumentState.WAITING,
        wake_at=timezone.now(),
        attempts=0,
        parts=0,
        parts_done=0,
        job_id=None,
        maker="",
        waiting_for="",
        error="",
    )


# -- what may be set ---------------------------------------------------------------------------


def _apply(base: KnowledgeBase, changes: Mapping[str, Any]) -> None:
    for field, value in changes.items():
        check = _CHECKS.get(field)
        if check is None:
            raise Invalid(f"'{field}' can't be set.", param=field)
        setattr(base, field, check(value))
    if base.method in (Method.SEMANTIC, Method.HYBRID) and not base.embedding_model:
        raise Invalid(
            "Searching by meaning needs an embedding model: choose one, or search by full text.",
            param="method",
        )


def _name(value: str) -> str:
    return clean_text(value, "name", most=MOST_NAME_CHARS, least=1)


def _description(value: str) -> str:
    return clean_text(value, "description", most=400)


def _method(value: str) -> str:
    if value not in Method.values:
        raise Invalid(f"'method' must be one of {', '.join(Method.values)}.", param="method")
    return value


def _top_k(value: int) -> int:
    if not 1 <= value <= MOST_TOP_K:
        raise Invalid(f"'top_k' must be from 1 to {MOST_TOP_K}.", param="top_k")
    return value


def _score_threshold(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise Invalid("'score_threshold' must be from 0 to 1.", param="score_threshold")
    return value


def _embedding_model(value: str) -> str:
    return _model(value, "embedding_model", Task.EMBED)


def _rerank_model(value: str) -> str:
    return _model(value, "rerank_model", Task.RERANK, Task.EMBED)


def _model(value: str, param: str, *tasks: Task) -> str:
    """The name of a model that does one of these things; empty for none."""
    if not value:
        return ""
    if value not in served_models(*tasks):
        raise Invalid(
            f"'{param}' must be a model that is served here, and that {tasks[0].label}.",
            param=param,
        )
    return value


def _prompt_template(value: str) -> str:
    if len(value) > MOST_TEMPLATE_CHARS or "\0" in value:
        raise Invalid(
            f"'prompt_template' may have {MOST_TEMPLATE_CHARS} characters.", param="prompt_template"
        )
    if not all(place in value for place in PLACES):
        raise Invalid(
            "'prompt_template' must hold {{context}} and {{query}}.", param="prompt_template"
        )
    return value


def _connection_id(value: UUID | None) -> UUID | None:
    if value is not None and not Connection.objects.filter(pk=value).exists():
        raise Invalid("There is no such connection.", param="connection_id")
    return value


_CHECKS: Final[Mapping[str, Any]] = {
    "name": _name,
    "description": _description,
    "method": _method,
    "top_k": _top_k,
    "score_threshold": _score_threshold,
    "embedding_model": _embedding_model,
    "rerank_model": _rerank_model,
    "prompt_template": _prompt_template,
    "connection_id": _connection_id,
}
