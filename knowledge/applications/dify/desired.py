"""Apps as they are wanted in a workspace: what is published, with what is known of the workspace.

Every function runs inside the tenant's scope.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from knowledge.applications.dify.dsl import Rendered, Retrieval, render
from knowledge.applications.dify.portal import Needs, portal_in
from knowledge.applications.selectors import get_version
from knowledge.applications.spec import AppSpec, bases_of, read_spec
from knowledge.dify.errors import DifyFault, Refused
from knowledge.models import (
    App,
    AppDeployment,
    AppMode,
    Connection,
    KnowledgeBase,
    Method,
    PortalInDify,
    RemoteObject,
)
from knowledge.sync.users import KNOWLEDGE_BASE

_MOST_TOP_K: Final = 50


class NotReady(DifyFault):
    """What the app searches is on its way."""

    code = "dify_knowledge_not_ready"
    sentence = "A knowledge base that the app searches is not in Dify yet; the app follows it."
    retryable = True


class ImportFailed(Refused):
    code = "dify_import_failed"
    sentence = (
        "Dify did not take the app in; look at its log, and at the version that is published."
    )


@dataclass(frozen=True, slots=True)
class Desired:
    """An app as it is wanted.

    Attributes:
        version: None while none is published.
        needs: of that version.
    """

    id: UUID
    name: str
    name_there: str
    description: str
    mode: AppMode
    version: int | None
    spec: AppSpec | None
    needs: Needs
    connection: Connection

    def rendered(self, name: str = "") -> Rendered | None:
        """Its definition; None while something that it names is not in the workspace yet.

        Args:
            name: its own, if not given.

        Raises:
            Unrenderable: Dify has no words for it.
        """
        if self.spec is None:
            return None
        row = portal_in(self.connection)
        model = row.registered.get(self.spec.model) if row is not None else None
        retrieval = _retrieval(self.connection, self.spec, row)
        if model is None or (retrieval is None and self.spec.knowledge):
            return None
        return render(
            self.spec,
            self.mode,
            name=name or self.name_there,
            description=self.description,
            model=model,
            dify_version=self.connection.version,
            retrieval=retrieval,
        )


def apps_of(connection: Connection, slug: str) -> Iterator[Desired]:
    """All apps that run in a connection's workspace."""
    found = AppDeployment.objects.filter(connection_id=connection.pk).values_list("app_id")
    for app in App.objects.filter(pk__in=found).order_by("id"):
        yield _desired(connection, slug, app)


def one_of(connection: Connection, slug: str, app_id: UUID) -> Desired:
    return _desired(connection, slug, App.objects.get(pk=app_id))


def _desired(connection: Connection, slug: str, app: App) -> Desired:
    spec = read_spec(get_version(app, app.published).spec) if app.published else None
    return Desired(
        id=app.pk,
        name=app.name,
        name_there=f"{slug}/{app.name}" if connection.shared else app.name,
        description=app.description,
        mode=AppMode(app.mode),
        version=app.published or None,
        spec=spec,
        needs=_needs(connection, spec),
        connection=connection,
    )


def _needs(connection: Connection, spec: AppSpec | None) -> Needs:
    if spec is None:
        return Needs("", frozenset())
    bases = KnowledgeBase.objects.filter(pk__in=bases_of(spec))
    outside = bases.exclude(connection_id=connection.pk).values_list("pk", flat=True)
    return Needs(spec.model, frozenset(outside))


def _retrieval(connection: Connection, spec: AppSpec, row: PortalInDify | None) -> Retrieval | None:
    """How the version's knowledge bases are searched there; None if one of them is not there."""
    if not spec.knowledge:
        return None
    bases = {base.pk: base for base in KnowledgeBase.objects.filter(pk__in=bases_of(spec))}
    there = datasets_of(connection, row)
    ids = [there.get(one.knowledge_base_id) for one in spec.knowledge]
    if None in ids:
        return None
    chosen = [(one, bases[one.knowledge_base_id]) for one in spec.knowledge]
    thresholds = {
        one.score_threshold if one.score_threshold is not None else base.score_threshold
        for one, base in chosen
    }
    words = any(_by_words(connection, base) for _, base in chosen)
    # One threshold holds for all of them there: the lowest leaves out nothing that one would keep.
    least = None if words or None in thresholds else min(t for t in thresholds if t is not None)
    top_k = sum(one.top_k or base.top_k for one, base in chosen)
    return Retrieval([i for i in ids if i], min(top_k, _MOST_TOP_K), least)


def _by_words(connection: Connection, base: KnowledgeBase) -> bool:
    """Whether Dify searches it by words alone, whose score is 0 always."""
    if base.connection_id != connection.pk:
        return False
    return base.method == Method.KEYWORD or not connection.capabilities["high_quality"]


def datasets_of(connection: Connection, row: PortalInDify | None) -> Mapping[UUID, str]:
    """Knowledge bases -> their ids in the workspace, of those that are there."""
    outside = {UUID(key): value for key, value in row.datasets.items()} if row else {}
    links = RemoteObject.objects.filter(
        connection_id=connection.pk, kind=KNOWLEDGE_BASE, gone=False
    ).exclude(remote_id="")
    return outside | {link.local_id: link.remote_id for link in links if link.local_id}
