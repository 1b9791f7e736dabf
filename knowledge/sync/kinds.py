"""What can be kept in step with Dify: a kind of object says how it is wanted, seen and changed.

A kind's values are cut into aspects, such as ``name`` or ``content``: each is compared, sent and
decided about by itself. A value is JSON. Where the portal and Dify say the same thing in the same
words, equal values are in step whoever wrote them; where they can't, such as a text here and the
file's id there, each side is compared with what it was when it was last sent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import UUID

from knowledge.dify.client import Dify
from knowledge.dify.errors import Missing, NoRoute, StillThere
from knowledge.models import Connection, RemoteObject
from portal.core.actors import Context

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Want:
    """An object as the portal wants it.

    Attributes:
        facts: aspect -> value; an aspect that is left out is none of the portal's business now.
        parent: local id of the object that it stands in; a kind that has parents is registered
            after theirs.
        revive: whether it is made anew where it is gone. An object that only has to be in step
            while it is there, such as an archived document, is not.
    """

    kind: str
    local_id: UUID
    label: str
    facts: Facts
    parent: UUID | None = None
    revive: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as Dify shows it.

    Attributes:
        parent: local id of the object in which it stands.
        ours: whether nobody but the portal can have made it.
    """

    remote_id: str
    label: str
    facts: Facts
    parent: UUID | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What one changing call did.

    Attributes:
        remote_id: of the object.
        sent: aspect -> value, in the want's terms, of what the call has set.
        shown: aspect -> value, in Dify's terms, of what is known of the object by its answer; of
            a new one that is everything. Where a part of a value is not known yet it is left out.
        batch: under which its indexing is to be followed; empty if there is nothing to follow.
    """

    remote_id: str
    sent: Facts
    shown: Facts
    batch: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How the indexing of an object does.

    Attributes:
        done: it is complete.
        again: it ended and is not complete: the object has to be made anew.
        error: why, in words.
    """

    done: bool = False
    again: bool = False
    error: str = ""


@dataclass(frozen=True)
class Session:
    """One runner's view of one connection: what kinds need to make a call. No scope is open.

    Attributes:
        remote: (kind, local id) -> id in Dify, of what is there.
        remembered: what a kind looked up once and needs again, such as the id of a tag.
    """

    dify: Dify
    connection: Connection
    slug: str
    remote: dict[tuple[str, UUID], str] = field(default_factory=dict)
    remembered: dict[Any, Any] = field(default_factory=dict)

    def parent(self, kind: str, local_id: UUID | None) -> str:
        """The id in Dify of what an object stands in."""
        assert local_id is not None, "an object of this kind stands in another"
        return self.remote[kind, local_id]


def delete_for_good(delete: Callable[[], Any], ask: Callable[[], Any]) -> None:
    """Deletes something, and asks for it until Dify says that there is no such object.

    Raises:
        StillThere: Dify answers as if it had deleted it, and has it.
    """
    for call in (delete, ask):
        try:
            call()
        except NoRoute:
            raise
        except Missing:
            return
    raise StillThere


class Kind(Protocol):
    """One kind of object. Methods that take a session call Dify, and no scope is open then.

    Attributes:
        name: stored, so it never changes.
        parent: the kind in which its objects stand; empty for none.
        first_alone: whether the first object in a parent is indexed before any other is sent.
    """

    name: str
    parent: str
    first_alone: bool

    def wants(self, connection: Connection, slug: str) -> Iterable[Want]:
        """All objects that are to stand in the connection's workspace; a scope is open."""

    def observe(self, session: Session, known: Sequence[RemoteObject]) -> Iterator[Seen]:
        """The objects that stand there; strangers only if they stand in an object of ours."""

    def find(self, session: Session, want: Want) -> Seen | None:
        """The object whose making was asked for and not answered, if it was made."""

    def create(self, session: Session, want: Want) -> Sent:
        """Makes it. ``find`` must find it if the answer is lost."""

    def update(
        self, session: Session, link: RemoteObject, want: Want, aspects: frozenset[str]
    ) -> Sent:
        """Makes one changing call towards the want; called again for what is left."""

    def follow(self, session: Session, link: RemoteObject) -> Progress:
        """How far it is indexed."""

    def delete(self, session: Session, link: RemoteObject, *, force: bool) -> None:
        """Deletes it; Dify has confirmed that it is gone.

        Args:
            force: even where somebody uses it.

        Raises:
            InUse: naming by what.
            StillThere: Dify does not confirm it.
        """

    def fetch(self, session: Session, link: RemoteObject) -> Any:
        """What ``take`` needs beyond what was seen, such as a text."""

    def take(
        self, context: Context, link: RemoteObject, aspects: frozenset[str], fetched: Any
    ) -> Facts:
        """Puts Dify's version into the portal; the connection's scope is open.

        Of an object that is gone it takes over that; of a stranger it makes a local one and sets
        ``link.local_id``.

        Returns:
            Values of the want that the portal will have by this and that can't be compared.
        """


_kinds: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    """Has a kind of object kept in step from now on; its parents' kind comes first."""
    _kinds[kind.name] = kind


def kinds() -> Sequence[Kind]:
    """Those that are registered, parents first."""
    return tuple(_kinds.values())


def kind_of(name: str) -> Kind:
    return _kinds[name]


CREATE: Final = "create"
"""What ``RemoteObject.asking`` says while an object's own making is not answered."""
