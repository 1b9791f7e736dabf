"""What there is to do, as a pure function of what is wanted, what was seen and what was sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from knowledge.models import Decision, DriftPolicy, RemoteObject, SyncState
from knowledge.sync.kinds import CREATE, Want

Key = tuple[str, UUID]


class Verb(StrEnum):
    """What a step does."""

    CREATE = "create"
    ADOPT = "adopt"
    UPDATE = "update"
    FOLLOW = "follow"
    TAKE = "take"
    DELETE = "delete"
    FORGET = "forget"
    CONFLICT = "conflict"


class Why(StrEnum):
    """What makes a step necessary."""

    NEW = "new"
    ASKED = "asked"
    EDITED = "edited"
    DRIFTED = "drifted"
    GONE = "gone"
    STRANGER = "stranger"
    UNWANTED = "unwanted"
    INDEXING = "indexing"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        aspects: those that are sent, taken or decided about.
    """

    verb: Verb
    why: Why
    kind: str
    label: str
    want: Want | None = None
    link: RemoteObject | None = None
    aspects: frozenset[str] = frozenset()


NOTHING: Final[frozenset[str]] = frozenset()


def plan(
    policy: str, wants: Iterable[Want], links: Sequence[RemoteObject], order: Sequence[str]
) -> list[Step]:
    """The steps that bring Dify in step, in the order in which they are taken.

    Args:
        policy: a ``DriftPolicy``: what becomes of what was changed in Dify.
        links: what was sent to Dify and seen there; strangers among them have no ``local_id``.
        order: names of kinds, parents first.
    """
    known = {(link.kind, link.local_id): link for link in links if link.local_id is not None}
    wanted = {(want.kind, want.local_id): want for want in wants}
    unwanted = {key[1] for key in known if key not in wanted}
    # What becomes of an object that is gone or unwanted becomes of what stands in it.
    settled = unwanted | {link.local_id for link in known.values() if link.gone}
    steps = [
        _keep(policy, want, known.get(key))
        for key, want in wanted.items()
        if want.parent not in settled
    ]
    steps += [
        _drop(link) if link.local_id is not None else _judge_stranger(policy, link)
        for link in links
        if (link.local_id is None or link.local_id in unwanted) and link.parent_id not in settled
    ]
    rank = {name: place for place, name in enumerate(order)}

    def place(step: Step) -> tuple[bool, int]:
        # What is to go goes first, for its name may be wanted; children before their parents.
        going = step.verb in (Verb.DELETE, Verb.FORGET)
        return not going, -rank[step.kind] if going else rank[step.kind]

    return sorted((step for step in steps if step is not None), key=place)


def _keep(policy: str, want: Want, link: RemoteObject | None) -> Step | None:
    """What a wanted object needs."""
    asked = link is not None and CREATE in link.asking
    if link is None or (not link.remote_id and not link.gone) or (link.gone and asked):
        if not want.revive and not asked:
            if link is None:
                return None
            return Step(Verb.FORGET, Why.UNWANTED, want.kind, want.label, want, link)
        verb, why = (Verb.ADOPT, Why.ASKED) if asked else (Verb.CREATE, Why.NEW)
        return Step(verb, why, want.kind, want.label, want, link)
    if link.gone:
        return _restore(policy, want, link)
    if link.state == SyncState.INDEXING:
        return Step(Verb.FOLLOW, Why.INDEXING, want.kind, want.label, want, link)
    drifted = drift_of(link, want)
    if drifted and (link.decision or policy) == DriftPolicy.THEIRS:
        return Step(Verb.TAKE, Why.DRIFTED, want.kind, want.label, want, link, drifted)
    if drifted and (link.decision or policy) == DriftPolicy.ASK:
        return Step(Verb.CONFLICT, Why.DRIFTED, want.kind, want.label, want, link, drifted)
    aspects = drifted | edits_of(link, want)
    if not aspects:
        return None
    why = Why.DRIFTED if drifted else Why.EDITED
    return Step(Verb.UPDATE, why, want.kind, want.label, want, link, aspects)


def _restore(policy: str, want: Want, link: RemoteObject) -> Step:
    """What becomes of a wanted object that somebody deleted in Dify."""
    decided = link.decision or policy
    if not want.revive:
        return Step(Verb.FORGET, Why.GONE, want.kind, want.label, want, link)
    if decided == DriftPolicy.OURS:
        return Step(Verb.CREATE, Why.GONE, want.kind, want.label, want, link)
    verb = Verb.TAKE if decided == DriftPolicy.THEIRS else Verb.CONFLICT
    return Step(verb, Why.GONE, want.kind, want.label, want, link)


def _drop(link: RemoteObject) -> Step:
    """What becomes of an object of ours that nobody wants there any more."""
    asked = bool(link.remote_id) or CREATE in link.asking
    verb = Verb.DELETE if asked and not link.gone else Verb.FORGET
    return Step(verb, Why.UNWANTED, link.kind, link.label, None, link)


def _judge_stranger(policy: str, link: RemoteObject) -> Step:
    """What becomes of what somebody made in Dify among ours; what is gone again is forgotten."""
    if link.gone:
        return Step(Verb.FORGET, Why.STRANGER, link.kind, link.label, None, link)
    verb = {
        Decision.OURS: Verb.DELETE,
        Decision.THEIRS: Verb.TAKE,
        DriftPolicy.ASK: Verb.CONFLICT,
    }[link.decision or policy]  # type: ignore[index]
    return Step(verb, Why.STRANGER, link.kind, link.label, None, link)


def drift_of(link: RemoteObject, want: Want) -> frozenset[str]:
    """The aspects that were changed in Dify, and not to what is wanted.

    What was sent and not answered may stand there by our own hand.
    """
    return frozenset(
        aspect
        for aspect in want.facts
        if aspect in link.shown
        and link.seen.get(aspect) != link.shown[aspect]
        and link.seen.get(aspect) != want.facts[aspect]
        and aspect not in link.asking
    )


def edits_of(link: RemoteObject, want: Want) -> frozenset[str]:
    """The aspects that are wanted otherwise than they were last sent, and not so in Dify."""
    return frozenset(
        aspect
        for aspect, value in want.facts.items()
        if aspect in link.asking
        or (value != link.sent.get(aspect) and value != link.seen.get(aspect))
    )
