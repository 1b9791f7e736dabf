"""Apps as objects that are kept in step with Dify.

An app is made under a name that nothing else can have, and gets its own once its id is written
down. Each change of it is one call: its definition is imported over its draft, the draft is
published, its API switched, its key made. So an upgrade and a way back are the same as the first
time: what is wanted is what the published version says.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from knowledge.applications.dify import desired
from knowledge.applications.dify.desired import Desired
from knowledge.applications.dify.dsl import Rendered, Unrenderable, digest_of
from knowledge.applications.dify.portal import forget_datasets, known, make_known, portal_in
from knowledge.applications.dify.secrets import seal_key
from knowledge.applications.dify.taking import take_definition
from knowledge.applications.services import edit_app, withdraw_app
from knowledge.dify.errors import DifyFault, Missing, NoRoute
from knowledge.dify.shapes import AppDetail
from knowledge.models import AppDeployment, Connection, RemoteObject
from knowledge.sync.kinds import Facts, Progress, Seen, Sent, Session, Want, delete_for_good
from knowledge.sync.names import mark_of, name_in_portal
from portal.core.actors import Context
from portal.core.errors import Conflict
from portal.core.tenancy import tenant_scope

APP: Final = "app"
PORTAL, NAME, DEFINITION, LIVE, API, KEY = (
    "portal", "name", "definition", "live", "api", "key",
)  # fmt: skip


class ReferencesLost(DifyFault):
    """Dify took a definition in and dropped knowledge bases from it."""

    code = "dify_references_lost"
    sentence = (
        "Dify lost the app's knowledge bases when it took the app in: see that they stand in the "
        "same workspace."
    )


class AppKind:
    """An app in the version that is published.

    ``portal`` is what the workspace knows of the portal for it: its model, and knowledge bases
    that the portal keeps itself. ``live`` is the version that answers: here its number and the
    digest of its definition, there the hash of what was published.
    """

    name = APP
    parent = ""
    first_alone = False

    def wants(self, connection: Connection, slug: str) -> Iterable[Want]:
        for app in desired.apps_of(connection, slug):
            facts: dict[str, Any] = {NAME: app.name_there, API: app.version is not None}
            if app.version is not None:
                facts[PORTAL] = known(portal_in(connection), app.needs)
                facts[KEY] = True
                facts |= _definition(app)
            yield Want(APP, app.id, app.name, facts, revive=app.version is not None)

    def observe(self, session: Session, known: Sequence[RemoteObject]) -> Iterator[Seen]:
        for link in known:
            if not link.remote_id:
                continue
            try:
                detail = session.dify.console.get_app(link.remote_id)
            except NoRoute:
                raise
            except Missing:
                continue
            yield Seen(detail.id, detail.name, _facts(session, detail, link.shown.get(KEY)))

    def find(self, session: Session, want: Want) -> Seen | None:
        mark = mark_of(want.local_id)
        number, more = 1, True
        while more:
            page = session.dify.console.list_apps(page=number, name=mark)
            for app in page.data:
                if app.name == mark:
                    detail = session.dify.console.get_app(app.id)
                    return Seen(app.id, app.name, _facts(session, detail, None))
            number, more = number + 1, page.has_more
        return None

    def create(self, session: Session, want: Want) -> Sent:
        met = _meet_needs(session, want.local_id)
        rendered = _rendered(session, want.local_id, mark_of(want.local_id))
        app_id = _imported(session, rendered)
        detail = session.dify.console.get_app(app_id)
        return Sent(app_id, {PORTAL: met}, _facts(session, detail, None))

    def update(
        self, session: Session, link: RemoteObject, want: Want, aspects: frozenset[str]
    ) -> Sent:
        aspect = next(a for a in (PORTAL, DEFINITION, NAME, LIVE, API, KEY) if a in aspects)
        sent, shown = getattr(self, f"_send_{_SENDERS[aspect]}")(session, link, want)
        return Sent(link.remote_id, sent, shown)

    def _send_portal(self, session: Session, link: RemoteObject, want: Want) -> tuple[Facts, Facts]:
        met = _meet_needs(session, want.local_id)
        return {PORTAL: met}, {}

    def _send_definition(
        self, session: Session, link: RemoteObject, want: Want
    ) -> tuple[Facts, Facts]:
        """Definition and name come in one import."""
        rendered = _rendered(session, want.local_id, want.facts[NAME])
        _imported(session, rendered, link.remote_id)
        draft = session.dify.console.draft(link.remote_id)
        if _datasets(draft.graph) != _datasets(rendered.document["workflow"]["graph"]):
            raise ReferencesLost
        name = session.dify.console.get_app(link.remote_id).name
        return (
            {NAME: want.facts[NAME], DEFINITION: rendered.digest},
            {NAME: name, DEFINITION: digest_of(draft.graph, draft.features)},
        )

    def _send_live(self, session: Session, link: RemoteObject, want: Want) -> tuple[Facts, Facts]:
        version = want.facts[LIVE]["version"]
        session.dify.console.publish(link.remote_id, name=f"v{version}", comment=session.slug)
        return {LIVE: want.facts[LIVE]}, {LIVE: session.dify.console.live_hash(link.remote_id)}

    def _send_api(self, session: Session, link: RemoteObject, want: Want) -> tuple[Facts, Facts]:
        session.dify.console.enable_app_api(link.remote_id, enabled=want.facts[API])
        return {API: want.facts[API]}, {API: want.facts[API]}

    def _send_key(self, session: Session, link: RemoteObject, want: Want) -> tuple[Facts, Facts]:
        """A key that is there already was made by a call whose answer was lost, or by a person."""
        keys = session.dify.console.app_keys(link.remote_id)
        key = keys[0] if keys else session.dify.console.create_app_key(link.remote_id)
        with tenant_scope(_context(session)):
            row = AppDeployment.objects.select_for_update().get(app_id=want.local_id)
            row.key_id = key.id
            seal_key(row, key.token)
            row.save(update_fields=["key_id", "data_key_version", "sealed"])
        return {KEY: True}, {KEY: key.id}

    def follow(self, session: Session, link: RemoteObject) -> Progress:
        return Progress(done=True)

    def delete(self, session: Session, link: RemoteObject, *, force: bool) -> None:
        console = session.dify.console
        delete_for_good(
            lambda: console.delete_app(link.remote_id), lambda: console.get_app(link.remote_id)
        )
        _forget_datasets(session, link)

    def fetch(self, session: Session, link: RemoteObject) -> Any:
        if link.gone:
            return None
        return _Fetched(session.slug, session.dify.console.draft(link.remote_id).graph)

    def take(
        self, context: Context, link: RemoteObject, aspects: frozenset[str], fetched: Any
    ) -> Facts:
        assert link.local_id is not None, "apps that are not ours are left alone"
        if link.gone:
            AppDeployment.objects.filter(app_id=link.local_id).delete()
            return {}
        if KEY in aspects:
            raise Conflict(
                "The app's key was deleted in Dify, and without one nobody can call it: keep the "
                "portal's version, which makes another, or let the app run in the portal."
            )
        values: dict[str, Any] = {}
        if NAME in aspects:
            name = name_in_portal(link.connection, fetched.slug, link.seen[NAME])
            edit_app(context=context, app_id=link.local_id, name=name)
        if API in aspects and not link.seen[API]:
            withdraw_app(context=context, app_id=link.local_id)
        if aspects & {DEFINITION, LIVE}:
            values = take_definition(context, link, fetched.graph)
        return values


@dataclass(frozen=True, slots=True)
class _Fetched:
    slug: str
    graph: Mapping[str, Any]


_SENDERS: Final = {
    PORTAL: "portal",
    DEFINITION: "definition",
    NAME: "definition",
    LIVE: "live",
    API: "api",
    KEY: "key",
}


def _definition(app: Desired) -> Facts:
    """What is to be live; nothing while something that it names is not there yet.

    What Dify has no words for is tried all the same, for the step says why in its row.
    """
    try:
        rendered = app.rendered()
    except Unrenderable:
        return {DEFINITION: "", LIVE: {}}
    if rendered is None:
        return {}
    digest = rendered.digest
    return {DEFINITION: digest, LIVE: {"version": app.version, "digest": digest}}


def _context(session: Session) -> Context:
    return Context.system("sync", tenant_id=session.connection.tenant_id)


def _desired(session: Session, app_id: UUID) -> Desired:
    """The app as it is wanted now; no scope is open."""
    with tenant_scope(_context(session)):
        return desired.one_of(session.connection, session.slug, app_id)


def _meet_needs(session: Session, app_id: UUID) -> Mapping[str, Any]:
    context, needs = _context(session), _desired(session, app_id).needs
    make_known(context, session.dify, session.connection, session.slug, needs)
    with tenant_scope(context):
        return known(portal_in(session.connection), needs)


def _rendered(session: Session, app_id: UUID, name: str) -> Rendered:
    """The app's definition, under a name.

    Raises:
        DifyFault: a knowledge base that it searches is not in Dify yet.
    """
    with tenant_scope(_context(session)):
        app = desired.one_of(session.connection, session.slug, app_id)
        found = app.rendered(name)
    if found is None:
        raise desired.NotReady
    return found


def _imported(session: Session, rendered: Rendered, app_id: str = "") -> str:
    """The id of the app that an import made, or wrote over.

    Raises:
        DifyFault: Dify did not take it in.
    """
    console = session.dify.console
    name = rendered.document["app"]["name"]
    done = console.import_app(rendered.yaml, name=name, app_id=app_id)
    if done.status == "pending":
        done = console.confirm_import(done.id)
    if not done.completed or not done.app_id:
        raise desired.ImportFailed
    return done.app_id


def _facts(session: Session, detail: AppDetail, key_id: str | None) -> dict[str, Any]:
    """An app as Dify shows it; a key that is not known is no fact."""
    console = session.dify.console
    draft = console.draft(detail.id)
    facts: dict[str, Any] = {
        NAME: detail.name,
        API: detail.enable_api,
        DEFINITION: digest_of(draft.graph, draft.features),
        LIVE: console.live_hash(detail.id),
    }
    if key_id:
        there = key_id in {key.id for key in console.app_keys(detail.id)}
        facts[KEY] = key_id if there else ""
    return facts


def _forget_datasets(session: Session, deleted: RemoteObject) -> None:
    """Deletes what stood in Dify for an app alone: knowledge bases that the portal keeps itself."""
    context, connection = _context(session), session.connection
    with tenant_scope(context):
        others = RemoteObject.objects.filter(connection_id=connection.pk, kind=APP, gone=False)
        there = set(others.exclude(pk=deleted.pk).values_list("local_id", flat=True))
        left = [app for app in desired.apps_of(connection, session.slug) if app.id in there]
    needed = {base_id for app in left for base_id in app.needs.bases}
    forget_datasets(context, session.dify, connection, needed)


def _datasets(graph: Mapping[str, Any]) -> list[Any]:
    return [node["data"].get("dataset_ids") for node in graph["nodes"]]
