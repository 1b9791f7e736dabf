"""Knowledge bases as objects that are kept in step."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from knowledge.dify import shapes
from knowledge.dify.errors import Missing, NameTaken, NoRoute, Refused
from knowledge.models import Connection, KnowledgeBase, Method, RemoteObject
from knowledge.services.bases import edit_knowledge_base
from knowledge.sync.kinds import (
    Facts,
    Progress,
    Seen,
    Sent,
    Session,
    Want,
    delete_for_good,
)
from knowledge.sync.names import mark_of, name_in_dify, name_in_portal, tag_of
from knowledge.sync.users import KNOWLEDGE_BASE, refuse_if_used_there
from portal.core.actors import Context

NAME, DESCRIPTION, RETRIEVAL, TAG = "name", "description", "retrieval", "tag"
TECHNIQUE: Final = "technique"

_METHODS: Final[Mapping[str, shapes.SearchMethod]] = {
    Method.SEMANTIC: "semantic_search",
    Method.FULL_TEXT: "full_text_search",
    Method.HYBRID: "hybrid_search",
    Method.KEYWORD: "keyword_search",
}
_BY_METHOD: Final = {theirs: ours for ours, theirs in _METHODS.items()}


class KnowledgeBaseKind:
    """A knowledge base with its settings; its documents are objects of their own.

    Searching by meaning or full text needs an embedding model in the workspace; without one Dify
    finds keywords alone, and that is what is sent. Dify keeps what it was made for.
    """

    name = KNOWLEDGE_BASE
    parent = ""
    first_alone = False

    def wants(self, connection: Connection, slug: str) -> Iterable[Want]:
        bases = KnowledgeBase.objects.filter(connection_id=connection.pk).order_by("id")
        links = RemoteObject.objects.filter(connection_id=connection.pk, kind=self.name)
        # Whoever made Dify embed it since: what it can do by now is what is asked of it.
        techniques = {link.local_id: link.seen.get(TECHNIQUE) for link in links}
        for base in bases:
            technique = techniques.get(base.pk) or _technique(connection, base)
            yield Want(
                self.name,
                base.pk,
                base.name,
                {
                    NAME: name_in_dify(connection, slug, base.name, base.pk),
                    DESCRIPTION: base.description,
                    RETRIEVAL: _retrieval(base, technique),
                    TAG: True,
                    TECHNIQUE: technique,
                },
            )

    def observe(self, session: Session, known: Sequence[RemoteObject]) -> Iterator[Seen]:
        ours = {link.remote_id for link in known if link.remote_id and not link.gone}
        if not ours:
            return
        for dataset in session.dify.knowledge.datasets():
            if dataset.id in ours:
                ours.remove(dataset.id)
                yield Seen(dataset.id, dataset.name, _facts(session, dataset))
        for dataset_id in ours:
            # A page slips while somebody deletes: what is not listed is asked for by its id.
            try:
                dataset = session.dify.knowledge.get_dataset(dataset_id)
            except NoRoute:
                raise
            except Missing:
                continue
            yield Seen(dataset.id, dataset.name, _facts(session, dataset))

    def find(self, session: Session, want: Want) -> Seen | None:
        found = _named(session, mark_of(want.local_id))
        return None if found is None else Seen(found.id, found.name, _facts(session, found))

    def create(self, session: Session, want: Want) -> Sent:
        facts = want.facts
        made = session.dify.knowledge.create_dataset(
            mark_of(want.local_id),
            description=facts[DESCRIPTION],
            indexing_technique=facts[TECHNIQUE],
            retrieval_model=_model(facts[RETRIEVAL]),
        )
        sent = {aspect: facts[aspect] for aspect in (DESCRIPTION, RETRIEVAL, TECHNIQUE)}
        return Sent(made.id, sent, _facts(session, made))

    def update(
        self, session: Session, link: RemoteObject, want: Want, aspects: frozenset[str]
    ) -> Sent:
        if aspects == {TAG}:
            session.dify.knowledge.bind_tags(link.remote_id, [_tag(session)])
            return Sent(link.remote_id, {TAG: True}, {TAG: True})
        changed = {aspect: want.facts[aspect] for aspect in aspects - {TAG}}
        retrieval = changed.get(RETRIEVAL)
        try:
            made = session.dify.knowledge.update_dataset(
                link.remote_id,
                name=changed.get(NAME),
                description=changed.get(DESCRIPTION),
                retrieval_model=None if retrieval is None else _model(retrieval),
            )
        except Missing:
            raise
        except Refused as refusal:
            if NAME in changed and _make_room(session, link, changed[NAME]):
                raise NameTaken(remote_status=refusal.remote_status) from None
            raise
        shown = _facts(session, made)
        return Sent(made.id, changed, {aspect: shown[aspect] for aspect in changed})

    def follow(self, session: Session, link: RemoteObject) -> Progress:
        return Progress(done=True)

    def delete(self, session: Session, link: RemoteObject, *, force: bool) -> None:
        if not force:
            refuse_if_used_there(session.dify.console, link)
        delete_for_good(
            lambda: session.dify.knowledge.delete_dataset(link.remote_id),
            lambda: session.dify.knowledge.get_dataset(link.remote_id),
        )

    def fetch(self, session: Session, link: RemoteObject) -> Any:
        return session.slug

    def take(
        self, context: Context, link: RemoteObject, aspects: frozenset[str], fetched: Any
    ) -> Facts:
        assert link.local_id is not None, "knowledge bases that are not ours are left alone"
        changes: dict[str, Any] = {}
        if link.gone:
            # What is in the portal stays there, and nowhere else.
            changes = {"connection_id": None}
        if NAME in aspects:
            changes["name"] = name_in_portal(link.connection, fetched, link.seen[NAME])
        if DESCRIPTION in aspects:
            changes["description"] = link.seen[DESCRIPTION]
        if RETRIEVAL in aspects:
            changes |= _settings(link.seen[RETRIEVAL], link.shown.get(RETRIEVAL) or {})
        edit_knowledge_base(context=context, knowledge_base_id=link.local_id, **changes)
        # A tag is nothing that the portal has: it is left away for good.
        return {TAG: True} if TAG in aspects else {}


def _named(session: Session, name: str) -> shapes.Dataset | None:
    number, more = 1, True
    while more:
        page = session.dify.knowledge.list_datasets(page=number, keyword=name)
        for dataset in page.data:
            if dataset.name == name:
                return dataset
        number, more = number + 1, page.has_more
    return None


def _make_room(session: Session, link: RemoteObject, name: str) -> bool:
    """Whether another has the name; one of ours, which is to get another itself, gives it up."""
    holder = _named(session, name)
    if holder is None or holder.id == link.remote_id:
        return False
    for (kind, local_id), remote_id in session.remote.items():
        if kind == KNOWLEDGE_BASE and remote_id == holder.id:
            session.dify.knowledge.update_dataset(holder.id, name=mark_of(local_id))
    return True


def _tag(session: Session) -> str:
    """The id of the tenant's tag, which is made where it is missing."""
    known: str | None = session.remembered.get(TAG)
    if known is None:
        name = tag_of(session.slug)
        found = [tag.id for tag in session.dify.knowledge.tags() if tag.name == name]
        known = found[0] if found else session.dify.knowledge.create_tag(name).id
        session.remembered[TAG] = known
    return known


def _technique(connection: Connection, base: KnowledgeBase) -> str:
    able = bool(connection.capabilities["high_quality"])
    return "high_quality" if able and base.method != Method.KEYWORD else "economy"


def _retrieval(base: KnowledgeBase, technique: str) -> dict[str, Any]:
    by_words = technique == "economy"
    return {
        "search_method": "keyword_search" if by_words else _METHODS[base.method],
        "top_k": base.top_k,
        # Dify's keyword search scores 0 always: any threshold would leave nothing.
        "score_threshold": None if by_words else base.score_threshold,
    }


def _model(retrieval: Mapping[str, Any]) -> shapes.RetrievalModel:
    return shapes.RetrievalModel(
        search_method=retrieval["search_method"],
        reranking_enable=False,
        top_k=retrieval["top_k"],
        score_threshold_enabled=retrieval["score_threshold"] is not None,
        score_threshold=retrieval["score_threshold"],
    )


def _settings(seen: Mapping[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """What was changed of the settings, as the portal has them."""
    changed = {key: value for key, value in seen.items() if value != shown.get(key)}
    if "search_method" in changed:
        changed["method"] = _BY_METHOD.get(changed.pop("search_method"), "")
    return changed


def _facts(session: Session, dataset: shapes.Dataset) -> dict[str, Any]:
    stored = dataset.retrieval_model_dict
    return {
        NAME: dataset.name,
        DESCRIPTION: dataset.description or "",
        RETRIEVAL: {
            "search_method": stored.search_method,
            "top_k": stored.top_k,
            "score_threshold": stored.score_threshold if stored.score_threshold_enabled else None,
        },
        TAG: tag_of(session.slug) in {tag.name for tag in dataset.tags},
        TECHNIQUE: dataset.indexing_technique or "economy",
    }
