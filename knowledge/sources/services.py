"""Verbs of sources. One that can't be read is never saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import IntegrityError, transaction
from django.utils import timezone

from knowledge.models import Document, DocumentSource, OnRemoved, RunState, SourceItem, SourceRun
from knowledge.schedules import clean_schedule
from knowledge.services.bases import locked_base
from knowledge.sources.events import SourceEvent
from knowledge.sources.outcome import due
from knowledge.sources.readers import reading_of
from knowledge.sources.reading import Entry, Opened, StillWritten
from knowledge.sources.settings import DatabaseSettings, read_settings
from knowledge.sources.vault import seal_password
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound, PortalError
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import clean_text, require_tenant

MOST_NAME_CHARS: Final = 80
MOST_PASSWORD_CHARS: Final = 500
SHOWN: Final = 10
"""How many entries a test shows."""
_SHOWN_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry as a test found it.

    Attributes:
        text: how a row begins; empty for a file.
        problem: why it would be refused; else empty.
    """

    key: str
    name: str
    text: str
    problem: str
    metadata: Mapping[str, Any]


def create_source(
    *,
    context: Context,
    knowledge_base_id: UUID,
    name: str,
    kind: str,
    settings: Mapping[str, Any],
    schedule: str = "",
    on_removed: str = OnRemoved.DELETE,
    password: str = "",
) -> DocumentSource:
    """Adds a source to a knowledge base, once it has been read; its first run is due at once.

    Args:
        settings: as the kind's structure in ``knowledge.sources.settings``.
        schedule: minutes, or five fields of cron in the tenant's time zone; empty for by hand.
        on_removed: what becomes of documents that are not in the source any more.
        password: of a database's user; it is encrypted, and shown to nobody.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such knowledge base here.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken.
        SourceFault: it can't be read; nothing is saved.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    tenant_id = require_tenant(context)
    with tenant_scope(context):
        base = locked_base(knowledge_base_id)
        source = DocumentSource(
            tenant_id=tenant_id,
            knowledge_base=base,
            name=_name(name),
            kind=kind,
            schedule=clean_schedule(schedule),
            on_removed=_on_removed(on_removed),
            created_by_id=context.user_id,
        )
        _apply(source, settings, password)
        source.wake_at = timezone.now()
        with intent_about(SourceEvent.CREATE, source):
            _save(source, force_insert=True)
    return source


def edit_source(
    *,
    context: Context,
    source_id: UUID,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    schedule: str | None = None,
    on_removed: str | None = None,
    paused: bool | None = None,
    password: str = "",
) -> DocumentSource:
    """Changes what is given and leaves the rest; other settings are tried before they are saved.

    Other settings and a pause stop a run that is under way. After other settings everything is
    looked at anew. A password that is empty stays as it is, unless it would be sent elsewhere.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such source here.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken.
        SourceFault: it can't be read; nothing is changed.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        source = _locked(source_id)
        source.name = source.name if name is None else _name(name)
        source.schedule = source.schedule if schedule is None else clean_schedule(schedule)
        source.on_removed = source.on_removed if on_removed is None else _on_removed(on_removed)
        source.paused = source.paused if paused is None else paused
        before = source.settings
        if settings is not None or password:
            _apply(source, before if settings is None else settings, password)
        with intent_about(SourceEvent.EDIT, source):
            if source.settings != before:
                source.full_wanted, source.last_key = True, None
            if source.settings != before or source.paused:
                _stop(source)
            if not _is_running(source):
                now = timezone.now()
                anew = source.settings != before and not source.paused
                source.wake_at = now if anew else due(source, now)
            _save(source)
    return source


def delete_source(*, context: Context, source_id: UUID, keep_documents: bool) -> None:
    """Forgets a source; its documents are deleted with it, or stay as if they were uploaded.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such source here.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        source = _locked(source_id)
        with intent_about(SourceEvent.DELETE, source, documents_kept=keep_documents):
            if not keep_documents:
                items = SourceItem.objects.filter(source_id=source.pk).exclude(document=None)
                documents = list(items.values_list("document_id", flat=True))
                Document.objects.filter(pk__in=documents).delete()
            DocumentSource.objects.filter(pk=source.pk).delete()


def start_run(
    *, context: Context, source_id: UUID, full: bool = False, empty_allowed: bool = False
) -> DocumentSource:
    """Has a source read now; nothing more if it is being read already.

    Args:
        full: everything is looked at, and what was removed is found.
        empty_allowed: nothing at all may be found, and every document be removed.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such source here.
        Conflict: it is paused.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        source = _locked(source_id)
        if source.paused:
            raise Conflict("The source is paused: resume it first.")
        source.full_wanted = source.full_wanted or full
        source.empty_allowed = empty_allowed
        if not _is_running(source):
            source.wake_at = timezone.now()
        with intent_about(SourceEvent.RUN, source, everything=full):
            source.save(update_fields=["full_wanted", "empty_allowed", "wake_at"])
    return source


def try_source(*, context: Context, source_id: UUID) -> Sequence[Seen]:
    """Reads the first entries of a source and keeps nothing.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such source here.
        Invalid: what is set can't be read here any more.
        SourceFault: it can't be read.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        source = _locked(source_id)
        opened = reading_of(source, read_settings(source.kind, source.settings))
        with intent_about(SourceEvent.TEST, source):
            return _first(opened)


def _first(opened: Opened) -> Sequence[Seen]:
    seen: list[Seen] = []
    with opened as reader:
        for batch in reader.batches(None):
            seen += [_seen(entry) for entry in batch.entries[: SHOWN - len(seen)]]
            if len(seen) >= SHOWN:
                break
    return seen


def _seen(entry: Entry) -> Seen:
    text = problem = ""
    try:
        content = entry.load()
        text = content[:_SHOWN_CHARS] if isinstance(content, str) else ""
    except StillWritten:
        problem = "The file is being written: it is left for the next run."
    except PortalError as refusal:
        problem = refusal.message
    return Seen(entry.key, entry.name, text, problem, entry.metadata)


def _apply(source: DocumentSource, settings: Mapping[str, Any], password: str) -> None:
    """Gives a source its settings, once it has been read by them."""
    checked = read_settings(source.kind, settings)
    if isinstance(checked, DatabaseSettings):
        _set_password(source, checked, password)
    _first(reading_of(source, checked))
    # As it is read back, so that what has not changed is the same.
    source.settings = msgspec.json.decode(msgspec.json.encode(checked))


def _set_password(source: DocumentSource, settings: DatabaseSettings, password: str) -> None:
    """Seals a new password; the present one is kept for the very place that it was given for."""
    if len(password) > MOST_PASSWORD_CHARS or "\0" in password:
        raise Invalid(f"'password' may have {MOST_PASSWORD_CHARS} characters.", param="password")
    if password:
        seal_password(source, password)
        return
    if source.sealed is not None:
        present = read_settings(source.kind, source.settings)
        if not isinstance(present, DatabaseSettings) or present.login != settings.login:
            raise Invalid(
                "Give the password again: it would be sent to another place or for another user.",
                param="password",
            )


def _stop(source: DocumentSource) -> None:
    """Whoever runs it finds out at the next step."""
    source.fence += 1
    source.wake_at = None
    SourceRun.objects.filter(source_id=source.pk, state=RunState.RUNNING).update(
        state=RunState.STOPPED, ended_at=timezone.now()
    )


def _is_running(source: DocumentSource) -> bool:
    return SourceRun.objects.filter(source_id=source.pk, state=RunState.RUNNING).exists()


def _name(text: str) -> str:
    return clean_text(text, "name", most=MOST_NAME_CHARS, least=1)


def _on_removed(text: str) -> str:
    if text not in OnRemoved.values:
        raise Invalid("'on_removed' must be delete, archive or keep.", param="on_removed")
    return text


def _locked(source_id: UUID) -> DocumentSource:
    base_id = DocumentSource.objects.filter(pk=source_id).values_list(
        "knowledge_base_id", flat=True
    )
    found = base_id.first()
    if found is None:
        raise NotFound("There is no such source of documents.")
    # First, as whoever deletes a knowledge base locks it first.
    locked_base(found)
    source = DocumentSource.objects.select_for_update().filter(pk=source_id).first()
    if source is None:
        raise NotFound("There is no such source of documents.")
    return source


def _save(source: DocumentSource, *, force_insert: bool = False) -> None:
    try:
        with transaction.atomic():
            source.save(force_insert=force_insert)
    except IntegrityError:
        raise Conflict(
            "There is already a source of this name in the knowledge base.", param="name"
        ) from None
