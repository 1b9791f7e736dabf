"""Looking at Dify: what stands there is written beside what was sent."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.utils import timezone

from knowledge.dify.probe import check_version
from knowledge.models import Connection, Decision, RemoteObject, Sync, SyncState
from knowledge.sync.kinds import CREATE, Seen, Session, Want, kinds
from knowledge.sync.lease import Lease

OBSERVE_EVERY: Final = timedelta(minutes=5)
_FIELDS: Final = ["seen", "shown", "gone"]


def links_of(connection: Connection) -> list[RemoteObject]:
    """All that is known to stand in a connection's workspace; its scope is open."""
    found = RemoteObject.objects.filter(tenant_id=connection.tenant_id, connection=connection)
    return list(found.order_by("id"))


def wants_of(connection: Connection, slug: str) -> list[Want]:
    """All that is to stand there; its scope is open."""
    return [want for kind in kinds() for want in kind.wants(connection, slug)]


def remotes_of(links: Iterable[RemoteObject]) -> dict[tuple[str, UUID], str]:
    """(kind, local id) -> id in Dify, of what is there."""
    return {
        (link.kind, link.local_id): link.remote_id
        for link in links
        if link.local_id is not None and link.remote_id and not link.gone
    }


def observe(lease: Lease, session: Session) -> None:
    """Asks Dify for all that stands in the connection's workspace, a page at a time.

    Raises:
        DifyFault: it can't be asked; nothing is written down.
    """
    with lease.scope():
        links = links_of(session.connection)
    session.remote.clear()
    session.remote.update(remotes_of(links))
    found = {}
    for kind in kinds():
        known = [link for link in links if link.kind == kind.name]
        found[kind.name] = list(kind.observe(session, known))
    if session.dify.version:
        check_version(session.dify.version)
    now = timezone.now()
    with lease.scope() as sync:
        for name, seen in found.items():
            _write([link for link in links if link.kind == name], name, seen, session.connection)
        Sync.objects.filter(pk=sync.pk).update(observed_at=now, observe_at=now + OBSERVE_EVERY)


def _write(
    links: Sequence[RemoteObject], kind: str, found: Sequence[Seen], connection: Connection
) -> None:
    known = {link.remote_id: link for link in links if link.remote_id}
    listed = {seen.remote_id: seen for seen in found}
    changed = []
    for remote_id, link in known.items():
        seen = listed.get(remote_id)
        if seen is None and not link.gone:
            link.gone = True
            changed.append(link)
        elif seen is not None and (link.gone or link.seen != seen.facts):
            link.gone, link.seen = False, dict(seen.facts)
            link.shown = _completed(link, seen.facts)
            changed.append(link)
    RemoteObject.objects.bulk_update(changed, _FIELDS, batch_size=500)
    asked: dict[tuple[UUID | None, str], int] = defaultdict(int)
    for link in links:
        if CREATE in link.asking and not link.remote_id:
            asked[link.parent_id, link.label] += 1
    strangers = []
    for remote_id in listed.keys() - known.keys():
        seen = listed[remote_id]
        if seen.ours and asked[seen.parent, seen.label]:
            # Whoever makes it again finds it.
            asked[seen.parent, seen.label] -= 1
            continue
        strangers.append(_stranger(connection, kind, seen))
    RemoteObject.objects.bulk_create(strangers, batch_size=500)


def _completed(link: RemoteObject, facts: Any) -> dict[str, Any]:
    """What was shown, with the parts that Dify did not tell then."""
    if link.state == SyncState.INDEXING:
        return dict(link.shown)
    shown = dict(link.shown)
    for aspect, value in facts.items():
        before = shown.get(aspect)
        if aspect not in shown or (
            isinstance(before, dict) and isinstance(value, dict) and _is_part(before, value)
        ):
            shown[aspect] = value
    return shown


def _is_part(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    return part.keys() < whole.keys() and all(whole[key] == part[key] for key in part)


def _stranger(connection: Connection, kind: str, seen: Seen) -> RemoteObject:
    """Something that nobody here knows; what only we can have made is a copy and goes."""
    return RemoteObject(
        tenant_id=connection.tenant_id,
        connection=connection,
        kind=kind,
        parent_id=seen.parent,
        label=seen.label[:255],
        remote_id=seen.remote_id,
        seen=dict(seen.facts),
        shown=dict(seen.facts),
        decision=Decision.OURS if seen.ours else "",
        state=SyncState.WAITING,
    )
