"""What may happen to knowledge that is kept in step, in any order: the moves of a sequence.

A move is its name and two numbers, which choose among what there is. So a sequence can be made by
chance, cut short, and played again.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from knowledge.dify.answers import Answer
from knowledge.dify.channel import Channel
from knowledge.models import Document, KnowledgeBase
from knowledge.services import (
    delete_document,
    delete_knowledge_base,
    edit_document,
    edit_knowledge_base,
)
from knowledge.sync.running import run
from portal.core.errors import PortalError
from portal.core.tenancy import tenant_scope
from tests.knowledge.dify.double import state
from tests.knowledge.dify.double.server import Kind
from tests.knowledge.sync.bench import Bench

Move = tuple[str, int, int]
T = TypeVar("T")

FAULTS: Final[Sequence[Kind]] = (
    "failed", "bad_gateway", "busy", "drop", "done_then_drop", "html_404", "nonsense",
)  # fmt: skip
NAMES: Final = ("alpha", "beta", "gamma")
TEXTS: Final = ("Twenty days.", "Thirty days.", "Ask the desk.", "Nobody knows.")


class Killed(BaseException):
    """The runner is dead from here on."""


class Player:
    """Plays moves on a bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.played: list[Move] = []

    def play(self, move: Move) -> None:
        name, a, b = move
        self.played.append(move)
        # What a service refuses, such as a name that is taken, is no move.
        with suppress(PortalError):
            getattr(self, name)(a, b)

    # -- in the portal -----------------------------------------------------------------------

    def add_base(self, a: int, b: int) -> None:
        self.bench.base(NAMES[a % 3].title(), description=TEXTS[b % 4])

    def edit_base(self, a: int, b: int) -> None:
        base = self._one(KnowledgeBase, a)
        if base is not None:
            changes: dict[str, Any] = {"top_k": b % 9 + 1}
            if b % 2:
                changes["name"] = NAMES[b % 3].title()
            edit_knowledge_base(context=self.bench.context, knowledge_base_id=base.pk, **changes)

    def delete_base(self, a: int, b: int) -> None:
        base = self._one(KnowledgeBase, a)
        if base is not None:
            delete_knowledge_base(context=self.bench.context, knowledge_base_id=base.pk)

    def put_text(self, a: int, b: int) -> None:
        base = self._one(KnowledgeBase, a)
        if base is not None:
            self.bench.text(base, f"{NAMES[b % 3]}.txt", f"{TEXTS[b % 4]} {b}")

    def edit_document(self, a: int, b: int) -> None:
        document = self._one(Document, a)
        if document is not None:
            changes: list[dict[str, Any]] = [
                {"enabled": not document.enabled},
                {"metadata": {"team": TEXTS[b % 4], "year": b}},
                {"name": f"{NAMES[b % 3]}-{b}.txt"},
                {"archived": document.archived_at is None},
            ]
            edit_document(context=self.bench.context, document_id=document.pk, **changes[b % 4])

    def delete_document(self, a: int, b: int) -> None:
        document = self._one(Document, a)
        if document is not None:
            delete_document(context=self.bench.context, document_id=document.pk)

    def _one(self, model: type[T], a: int) -> T | None:
        with tenant_scope(self.bench.context):
            found = list(model.objects.order_by("id"))  # type: ignore[attr-defined]
        return found[a % len(found)] if found else None

    # -- in Dify -----------------------------------------------------------------------------

    def click_base(self, a: int, b: int) -> None:
        """Somebody renames a knowledge base there, sets it otherwise, or deletes it."""

        def change(own: state.Workspace) -> None:
            dataset = _pick(list(own.datasets.values()), a)
            if dataset is None:
                return
            if b % 3 == 0:
                # While it is being made its name alone tells whose it is: docs/knowledge.md.
                if not dataset.name.startswith("portal-"):
                    dataset.name = f"theirs {b}"
            elif b % 3 == 1:
                dataset.retrieval = {**dataset.retrieval, "top_k": 40}
            else:
                del own.datasets[dataset.id]

        self.bench.double.click(change)

    def click_document(self, a: int, b: int) -> None:
        """Somebody changes a document there: its text, whether it counts, whether it is there."""

        def change(own: state.Workspace) -> None:
            places = [(d, x) for d in own.datasets.values() for x in d.documents.values()]
            found = _pick(places, a)
            if found is None:
                return
            dataset, document = found
            if b % 4 == 0:
                document.content, document.file_id = f"Theirs {b}.".encode(), state.new_id()
                document.split()
            elif b % 4 == 1:
                document.enabled = not document.enabled
            elif b % 4 == 2:
                document.name = f"theirs-{b}.txt"
            else:
                del dataset.documents[document.id]

        self.bench.double.click(change)

    def click_upload(self, a: int, b: int) -> None:
        """Somebody adds a document there."""

        def change(own: state.Workspace) -> None:
            dataset = _pick(list(own.datasets.values()), a)
            if dataset is not None:
                name = f"{NAMES[b % 3]}.txt"
                made = state.Document(
                    name, name, b"Theirs.", len(dataset.documents) + 1, {}, 0, 2, updated=True
                )
                made.split()
                dataset.documents[made.id] = made

        self.bench.double.click(change)

    # -- the weather, and the runner -----------------------------------------------------------

    def fault(self, a: int, b: int) -> None:
        methods = ("", "POST", "GET", "PATCH", "DELETE")
        self.bench.double.fail(
            FAULTS[a % len(FAULTS)], method=methods[b % 5], times=b % 3 + 1, retry_after="0"
        )

    def lose(self, a: int, b: int) -> None:
        self.bench.double.knowledge.lose = a % 3

    def run(self, a: int, b: int) -> None:
        self.bench.run(look=a % 2 == 0)

    def killed_run(self, a: int, b: int) -> None:
        """A run that is killed at one of its calls, before it or with its answer unread."""
        self.bench.hurry(look=b % 4 == 0)
        lease = self.bench.lease()
        assert lease is not None
        with Killing(a % 9, after=b % 2 == 1), suppress(Killed):
            run(lease)


def _pick(found: Sequence[T], a: int) -> T | None:
    return found[a % len(found)] if found else None


class Killing:
    """Kills the caller at its n-th call to Dify: before it goes out, or with its answer unread.

    No transaction is open then, so nothing is left that a killed process would not leave.
    """

    def __init__(self, number: int, *, after: bool) -> None:
        self._left, self._after = number, after

    def __enter__(self) -> None:
        self._call: Callable[..., Answer] = Channel.call
        original, owner = self._call, self

        def call(channel: Channel, *given: Any, **how: Any) -> Answer:
            owner._left -= 1
            if owner._left < 0 and not owner._after:
                raise Killed
            answer = original(channel, *given, **how)
            if owner._left < 0:
                raise Killed
            return answer

        Channel.call = call  # type: ignore[method-assign, assignment]

    def __exit__(self, *_: object) -> None:
        Channel.call = self._call  # type: ignore[method-assign]


MOVES: Final = (
    "add_base", "edit_base", "delete_base", "put_text", "put_text", "put_text", "edit_document",
    "edit_document", "delete_document", "click_base", "click_document", "click_document",
    "click_upload", "fault", "fault", "lose", "run", "run", "run", "killed_run", "killed_run",
    "killed_run",
)  # fmt: skip


def faults_of(bench: Bench) -> list[str]:
    """What is not as the portal wants it, in words, once a runner has settled."""
    with tenant_scope(bench.context):
        bases = {base.name: base for base in KnowledgeBase.objects.all()}
        documents = list(Document.objects.select_related("knowledge_base"))
        texts = {
            document.pk: document.versions.get(number=document.version).text
            for document in documents
        }
    there = bench.double.own.datasets.values()
    wrong = []
    if sorted(bases) != sorted(dataset.name for dataset in there):
        wrong.append(f"knowledge bases {sorted(d.name for d in there)} for {sorted(bases)}")
    known = {link.local_id: link.remote_id for link in bench.links() if link.remote_id}
    for dataset in there:
        base = bases.get(dataset.name)
        if base is None:
            continue
        if known.get(base.pk) != dataset.id or dataset.retrieval.get("top_k") != base.top_k:
            wrong.append(f"{dataset.name} is another, or set otherwise")
        wanted = {d.pk: d for d in documents if d.knowledge_base_id == base.pk}
        sent = {known[pk]: d for pk, d in wanted.items() if pk in known}
        missing = [d.name for pk, d in wanted.items() if pk not in known and not d.archived_at]
        wrong += [f"{name} is missing" for name in missing]
        if set(sent) != set(dataset.documents):
            wrong.append(f"{dataset.name} has {len(dataset.documents)} documents for {len(sent)}")
        for remote_id, document in sent.items():
            found = dataset.documents.get(remote_id)
            if found is not None:
                wrong += _differences(document, texts[document.pk], found)
    return wrong


def _differences(document: Document, text: str | None, found: state.Document) -> list[str]:
    values = {value["name"]: value["value"] for value in found.metadata.values()}
    pairs = {
        "name": (document.name, found.name),
        "text": (text, found.text),
        "enabled": (document.enabled, found.enabled),
        "archived": (document.archived_at is not None, found.archived),
        "metadata": (document.metadata, values),
        "lost": (False, found.lost),
    }
    return [f"{document.name}: {k} {a!r} is {b!r}" for k, (a, b) in pairs.items() if a != b]
