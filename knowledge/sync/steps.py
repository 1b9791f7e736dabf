"""The steps of one plan: noted, then taken one by one, each written down before the next."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.utils import timezone

from knowledge.dify import errors
from knowledge.models import Decision, RemoteObject, SyncState
from knowledge.sync.deleting import delete_object
from knowledge.sync.failures import STOPS, backoff, note_object_failure
from knowledge.sync.kinds import CREATE, Kind, Sent, Session, Want, kind_of
from knowledge.sync.lease import Lease
from knowledge.sync.planning import Step, Verb, drift_of, edits_of
from portal.core.errors import PortalError

MOST_INDEXING: Final = 40
"""So many objects of a connection are indexed at once; the rest wait their turn."""
_MOST_FAILURES: Final = 3
_SENDING: Final = (Verb.CREATE, Verb.ADOPT, Verb.UPDATE)
_MAKING: Final = (Verb.CREATE, Verb.ADOPT)
_DOUBTFUL: Final = (errors.Failed, errors.UnexpectedAnswer, errors.TooLarge)


class Steps:
    """Takes the steps of one plan.

    Args:
        links: all objects of the connection, as they were planned with.
    """

    def __init__(
        self, lease: Lease, session: Session, steps: Sequence[Step], links: Sequence[RemoteObject]
    ) -> None:
        self._lease = lease
        self._session = session
        self._steps = steps
        self._indexing = Counter(
            link.parent_id for link in links if link.state == SyncState.INDEXING and not link.gone
        )
        self._seeded = {
            (link.kind, link.parent_id) for link in links if link.synced_at and not link.gone
        }
        self._failures = 0

    def take(self, until: float) -> bool:
        """Takes what is due until the time is over; whether it took any step.

        Raises:
            DifyFault: one that every other step would meet as well.
            LostLease: another runner has the connection.
        """
        taken = False
        for step in self._steps:
            if time.monotonic() >= until:
                return True
            if self._is_due(step):
                self._take(step)
                taken = True
        return taken

    def next_due(self) -> datetime | None:
        """When the first step that waits for nothing but time is due; None if none does."""
        now = timezone.now()
        times = [
            (step.link and step.link.next_at) or now
            for step in self._steps
            if step.verb != Verb.CONFLICT and not self._is_held(step)
        ]
        return min(times, default=None)

    def _is_due(self, step: Step) -> bool:
        if step.verb == Verb.CONFLICT or self._is_held(step):
            return False
        waits = step.link is not None and step.link.next_at is not None
        return not waits or step.link.next_at <= timezone.now()  # type: ignore[union-attr,operator]

    def _is_held(self, step: Step) -> bool:
        """Whether another step has to come first."""
        if step.verb not in _SENDING or step.want is None:
            return False
        kind, parent = kind_of(step.kind), step.want.parent
        if kind.parent and (kind.parent, parent) not in self._session.remote:
            return True
        if self._indexing.total() >= MOST_INDEXING:
            return True
        # Dify loses segments of objects that are indexed beside the first one.
        alone = kind.first_alone and (step.kind, parent) not in self._seeded
        return alone and step.verb in _MAKING and self._indexing[parent] > 0

    def _take(self, step: Step) -> None:
        assert step.link is not None, "every step has its row by now"
        try:
            getattr(self, _DO[step.verb])(step, step.link, kind_of(step.kind))
            self._failures = 0
        except PortalError as refusal:
            note_object_failure(self._lease, step.link, refusal)
            if isinstance(refusal, STOPS):
                raise
            self._failures += isinstance(refusal, _DOUBTFUL)
            if self._failures >= _MOST_FAILURES:
                raise

    # -- sending -----------------------------------------------------------------------------

    def _create(self, step: Step, link: RemoteObject, kind: Kind) -> None:
        assert step.want is not None
        with self._lease.scope():
            _forget_there(link)
            link.asking = [CREATE]
            link.save()
            self._reset_inside(link)
        self._sent(step.want, link, kind.create(self._session, step.want))

    def _adopt(self, step: Step, link: RemoteObject, kind: Kind) -> None:
        """Looks for what was asked for and not answered; makes it if it was not made."""
        assert step.want is not None
        seen = kind.find(self._session, step.want)
        if seen is None:
            self._create(step, link, kind)
            return
        self._sent(step.want, link, Sent(seen.remote_id, {}, seen.facts), adopted=True)

    def _update(self, step: Step, link: RemoteObject, kind: Kind) -> None:
        assert step.want is not None
        with self._lease.scope():
            link.asking = sorted(step.aspects)
            link.save(update_fields=["asking"])
        self._sent(step.want, link, kind.update(self._session, link, step.want, step.aspects))

    def _sent(self, want: Want, link: RemoteObject, sent: Sent, *, adopted: bool = False) -> None:
        """Writes down what a call did."""
        link.remote_id, link.asking = sent.remote_id, []
        link.sent = {**link.sent, **sent.sent}
        link.shown, link.seen = {**link.shown, **sent.shown}, {**link.seen, **sent.shown}
        if not drift_of(link, want):
            # A call puts back one thing; what was decided holds for all that was changed.
            link.decision = ""
        link.attempts = link.attempts if link.error else 0
        follow = bool(sent.batch) or (adopted and bool(kind_of(link.kind).parent))
        if follow:
            link.batch, link.state = sent.batch, SyncState.INDEXING
            self._indexing[link.parent_id] += 1
            link.next_at = timezone.now() + _poll_after(link)
        else:
            self._settle(link, want)
        with self._lease.scope():
            link.save()
        if link.local_id is not None:
            self._session.remote[link.kind, link.local_id] = link.remote_id

    def _settle(self, link: RemoteObject, want: Want | None) -> None:
        """An object that is not indexed: it is in step, or something of it is still to be sent."""
        now = timezone.now()
        left = want is not None and bool(edits_of(link, want) or drift_of(link, want))
        link.state = SyncState.WAITING if left else SyncState.IN_STEP
        link.synced_at = link.synced_at if left else now
        link.waiting_since = link.waiting_since if left else None
        link.next_at, link.attempts, link.error, link.error_code = None, 0, "", ""

    def _reset_inside(self, link: RemoteObject) -> None:
        """What stood in an object that is made anew is made anew with it."""
        inside = RemoteObject.objects.filter(
            connection_id=link.connection_id, parent_id=link.local_id
        )
        inside.filter(local_id=None).delete()
        for child in inside:
            _forget_there(child)
            child.save()

    def _follow(self, step: Step, link: RemoteObject, kind: Kind) -> None:
        progress = kind.follow(self._session, link)
        if progress.done:
            self._settle(link, step.want)
            link.batch, link.synced_at = "", timezone.now()
            self._indexing[link.parent_id] -= 1
            self._seeded.add((link.kind, link.parent_id))
        elif progress.again:
            self._make_again(link, kind, progress.error)
        else:
            if _age(link) > _SLOW:
                # It may stand in a long queue there, so it is not made again unasked.
                link.error, link.error_code = _SLOW_WORDS, "dify_slow"
            link.next_at = timezone.now() + _poll_after(link)
        with self._lease.scope():
            link.save()

    def _make_again(self, link: RemoteObject, kind: Kind, error: str) -> None:
        with self._lease.scope():
            # From here on its absence is our own doing.
            link.asking = [CREATE]
            link.save(update_fields=["asking"])
        kind.delete(self._session, link, force=True)
        self._indexing[link.parent_id] -= 1
        _forget_there(link)
        link.attempts = min(link.attempts + 1, 1000)
        link.error = error
        link.next_at = timezone.now() + (backoff(link.attempts - 1) if link.attempts > 1 else _NOW)

    # -- taking and leaving ------------------------------------------------------------------

    def _take_over(self, step: Step, link: RemoteObject, kind: Kind) -> None:
        stranger = link.local_id is None
        fetched = kind.fetch(self._session, link)
        with self._lease.scope():
            values = kind.take(self._lease.context, link, step.aspects, fetched)
            if link.gone:
                RemoteObject.objects.filter(
                    connection_id=link.connection_id, parent_id=link.local_id
                ).delete()
                link.delete()
                return
            link.sent = {**link.sent, **values}
            taken = step.aspects or link.seen.keys()
            link.shown = {**link.shown, **{aspect: link.seen[aspect] for aspect in taken}}
            # Its text is a version of another document now; the copy goes.
            link.decision = Decision.OURS if stranger and link.local_id is None else ""
            self._settle(link, None)
            link.save()

    def _delete(self, step: Step, link: RemoteObject, kind: Kind) -> None:
        delete_object(self._lease, self._session, kind, link)

    def _forget(self, step: Step, link: RemoteObject, kind: Kind) -> None:
        with self._lease.scope():
            RemoteObject.objects.filter(
                connection_id=link.connection_id, parent_id=link.local_id or UUID(int=0)
            ).delete()
            link.delete()


_NOW: Final = timedelta(0)
_SLOW: Final = timedelta(hours=1)
_SLOW_WORDS: Final = (
    "Dify has been indexing this for more than an hour: check that its worker runs. If it never "
    "ends, delete the document in Dify, and it is made again."
)
_DO: Final = {
    Verb.CREATE: "_create",
    Verb.ADOPT: "_adopt",
    Verb.UPDATE: "_update",
    Verb.FOLLOW: "_follow",
    Verb.TAKE: "_take_over",
    Verb.DELETE: "_delete",
    Verb.FORGET: "_forget",
}


def _poll_after(link: RemoteObject) -> timedelta:
    """The longer it takes, the more seldom it is asked about."""
    return min(max(_age(link) / 4, timedelta(seconds=0.5)), timedelta(seconds=30))


def _age(link: RemoteObject) -> timedelta:
    """How long something of it has been waited for."""
    now = timezone.now()
    return now - (link.waiting_since or now)


def _forget_there(link: RemoteObject) -> None:
    """Makes of it an object that has never been in Dify; the row is not saved."""
    link.remote_id, link.batch, link.gone, link.asking = "", "", False, []
    link.sent, link.shown, link.seen = {}, {}, {}
    link.state, link.synced_at = SyncState.WAITING, None


def note_steps(
    session: Session, steps: Iterable[Step], links: Sequence[RemoteObject]
) -> list[Step]:
    """Writes a plan into the objects' rows, in the open scope: who waits, who is in step, who is
    to be decided about. Returns the steps, each with its row.
    """
    now = timezone.now()
    noted = [
        step if step.link else replace(step, link=_new_row(session, step, now)) for step in steps
    ]
    RemoteObject.objects.bulk_create(
        [
            step.link
            for step, old in zip(noted, steps, strict=True)
            if old.link is None and step.link
        ],
        batch_size=500,
    )
    by_row = {step.link.pk: step for step in noted if step.link is not None}
    changed = [link for link in links if _note(link, by_row.get(link.pk), now)]
    RemoteObject.objects.bulk_update(changed, _NOTED, batch_size=500)
    return noted


_NOTED: Final = [
    "state", "label", "waiting_since", "next_at", "attempts", "error", "error_code", "synced_at",
    "sent", "shown",
]  # fmt: skip


def _new_row(session: Session, step: Step, now: datetime) -> RemoteObject:
    assert step.want is not None
    return RemoteObject(
        tenant_id=session.connection.tenant_id,
        connection=session.connection,
        kind=step.kind,
        local_id=step.want.local_id,
        parent_id=step.want.parent,
        label=step.label,
        waiting_since=now,
    )


def _note(link: RemoteObject, step: Step | None, now: datetime) -> bool:
    """Puts the plan's word on an object into its row; whether that changed it."""
    before = [getattr(link, name) for name in _NOTED]
    if step is not None and step.want is not None:
        link.label = step.want.label
        _rebase(link, step.want)
    settled = link.state == SyncState.IN_STEP
    if step is None:
        if not settled and link.state != SyncState.INDEXING and link.remote_id and not link.gone:
            link.state, link.synced_at = SyncState.IN_STEP, link.synced_at or now
            _calm(link)
    elif step.verb == Verb.CONFLICT:
        link.state = SyncState.CONFLICT
        _calm(link)
    elif settled or link.state == SyncState.CONFLICT:
        link.state, link.waiting_since = SyncState.WAITING, now
    return before != [getattr(link, name) for name in _NOTED]


def _calm(link: RemoteObject) -> None:
    link.waiting_since, link.next_at, link.attempts = None, None, 0
    link.error = link.error_code = ""


def _rebase(link: RemoteObject, want: Want) -> None:
    """What stands there as it is wanted counts as sent, whoever put it there."""
    equal = [a for a, value in want.facts.items() if a in link.seen and link.seen[a] == value]
    if equal and link.remote_id:
        values: dict[str, Any] = {aspect: want.facts[aspect] for aspect in equal}
        link.sent, link.shown = {**link.sent, **values}, {**link.shown, **values}
