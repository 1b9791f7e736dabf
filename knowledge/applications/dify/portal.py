"""Makes the portal known in a workspace: its models, and the knowledge bases that it keeps itself.

Both are called with a key of the tenant's service account 'Dify'. So what an app spends in Dify
comes back through ``/v1`` and is charged to its tenant, within the quotas of that account. Where
several tenants share a workspace each has models of its own there, named by the tenant.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from inference.gateway.catalogue import Routed, Served
from inference.jobs.catalogue import named_models
from knowledge.accounts import new_dify_key, usable_key
from knowledge.applications.dify.secrets import open_key, seal_key
from knowledge.dify.client import Dify
from knowledge.dify.console_api import GATEWAY_PROVIDER
from knowledge.models import Connection, KnowledgeBase, PortalInDify
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import Conflict
from portal.core.tenancy import tenant_scope

_KNOWLEDGE_PATH: Final = "/api/v1/external-knowledge"
_MOST_DATASET_TOP_K: Final = 10


class NoAddress(Conflict):
    """Dify has to call the portal, and nobody has said where it is."""

    code = "portal_url_missing"

    def __init__(self) -> None:
        super().__init__(
            "Dify has to reach this portal for models and knowledge: the operator sets PORTAL_URL "
            "to the address under which Dify does."
        )


@dataclass(frozen=True, slots=True)
class Needs:
    """What a version of an app asks of the portal from within Dify.

    Attributes:
        bases: those that the portal keeps itself.
    """

    model: str
    bases: frozenset[UUID]


def portal_url() -> str:
    """Where Dify reaches the portal, without a slash at the end.

    Raises:
        NoAddress: nobody has said.
    """
    address = _address()
    if not address:
        raise NoAddress
    return address


def _address() -> str:
    return env().portal_url.rstrip("/")


def portal_in(connection: Connection) -> PortalInDify | None:
    """What the connection's workspace knows of the portal; inside the tenant's scope."""
    return PortalInDify.objects.filter(connection_id=connection.pk).first()


def known(row: PortalInDify | None, needs: Needs) -> dict[str, Any]:
    """What of the needs is met, as a value that changes when something has to be done.

    Inside the tenant's scope.
    """
    if row is None or not _is_current(row):
        return {"generation": 0}
    return {
        "generation": row.generation,
        "model": row.registered.get(needs.model, ""),
        "bases": sorted(str(i) for i in needs.bases if str(i) in row.datasets),
    }


def _is_current(row: PortalInDify) -> bool:
    return row.url == _address() and usable_key(row.api_key_id) is not None


def make_known(
    context: Context, dify: Dify, connection: Connection, slug: str, needs: Needs
) -> None:
    """Registers what is needed and not there yet; what was made is written down before the next.

    Call it outside any scope. Called again after a crash it finds what it made.

    Raises:
        DifyFault: Dify did not take something.
        Conflict: the portal has no address, or the service account is disabled.
    """
    work = _Registering(context, dify, connection, slug)
    work.model(needs.model)
    for base_id in sorted(needs.bases):
        work.base(base_id)


class _Registering:
    """Registers for one tenant in one workspace."""

    def __init__(self, context: Context, dify: Dify, connection: Connection, slug: str) -> None:
        self._context = context
        self._dify = dify
        self._connection = connection
        self._slug = slug
        self._url = portal_url()
        with tenant_scope(context):
            self._row = self._current()
            self._key = open_key(self._row)

    def _current(self) -> PortalInDify:
        """The row with a key that works; a new key begins a new generation."""
        row = PortalInDify.objects.filter(connection_id=self._connection.pk).first()
        if row is not None and _is_current(row):
            return row
        generation = row.generation + 1 if row is not None else 1
        row = row or PortalInDify(
            tenant_id=self._connection.tenant_id, connection_id=self._connection.pk
        )
        made = new_dify_key(self._context)
        row.api_key, row.generation, row.url = made.api_key, generation, self._url
        row.registered, row.datasets, row.source_id = {}, {}, ""
        seal_key(row, made.token)
        row.save()
        return row

    def _write(self, change: Callable[[PortalInDify], None]) -> None:
        with tenant_scope(self._context):
            self._row = PortalInDify.objects.select_for_update().get(pk=self._row.pk)
            change(self._row)
            self._row.save()

    # -- models ------------------------------------------------------------------------------

    def model(self, model: str) -> None:
        if model in self._row.registered:
            return
        remote = _model_name(self._slug, model, self._row.generation)
        if remote not in _models(self._dify):
            with tenant_scope(self._context):
                length = _context_length(model)
            self._dify.console.create_model_credential(
                model=remote,
                name=self._slug,
                credentials=_credentials(model, self._url, self._key, length),
            )
        self._write(lambda row: row.registered.update({model: remote}))

    # -- knowledge bases ---------------------------------------------------------------------

    def base(self, base_id: UUID) -> None:
        if str(base_id) in self._row.datasets:
            return
        source = self._source()
        with tenant_scope(self._context):
            base = KnowledgeBase.objects.get(pk=base_id)
        name = _dataset_name(base_id, self._row.generation)
        found = self._dify.knowledge.list_datasets(keyword=name).data
        dataset = next((one for one in found if one.name == name), None)
        if dataset is None:
            dataset = self._dify.console.create_external_dataset(
                api_id=source,
                knowledge_id=str(base_id),
                name=name,
                description=f"{self._slug}: {base.name}",
                top_k=min(base.top_k, _MOST_DATASET_TOP_K),
                score_threshold=base.score_threshold,
            )
        made = dataset.id
        self._write(lambda row: row.datasets.update({str(base_id): made}))

    def _source(self) -> str:
        if not self._row.source_id:
            name = _source_name(self._slug, self._row.generation)
            source = self._source_named(name)
            if source is None:
                source = self._dify.console.create_external_api(
                    name=name, endpoint=f"{self._url}{_KNOWLEDGE_PATH}", key=self._key
                ).id
            made = source
            self._write(lambda row: setattr(row, "source_id", made))
        return self._row.source_id

    def _source_named(self, name: str) -> str | None:
        number, more = 1, True
        while more:
            page = self._dify.console.external_apis(page=number)
            for source in page.data:
                if source.name == name:
                    return source.id
            number, more = number + 1, page.has_more
        return None


def forget_datasets(
    context: Context, dify: Dify, connection: Connection, needed: Iterable[UUID]
) -> None:
    """Deletes from Dify the knowledge bases that no app there needs any more."""
    with tenant_scope(context):
        row = portal_in(connection)
    kept = {str(base_id) for base_id in needed}
    for base_id, dataset_id in dict(row.datasets if row is not None else {}).items():
        if base_id in kept or dify.console.in_use(dataset_id):
            continue
        dify.knowledge.delete_dataset(dataset_id)
        with tenant_scope(context):
            locked = PortalInDify.objects.select_for_update().get(connection_id=connection.pk)
            locked.datasets.pop(base_id, None)
            locked.save(update_fields=["datasets"])


def _models(dify: Dify) -> set[str]:
    return {
        model.model
        for provider in dify.console.models()
        if provider.provider == GATEWAY_PROVIDER
        for model in provider.models
    }


def _model_name(slug: str, model: str, generation: int) -> str:
    """Dify sends another name to the portal; this one is for people, and keeps tenants apart."""
    name = f"{slug}/{model}"
    return name if generation == 1 else f"{name}#{generation}"


def _source_name(slug: str, generation: int) -> str:
    name = f"Portal: {slug}"
    return name if generation == 1 else f"{name} #{generation}"


def _dataset_name(base_id: UUID, generation: int) -> str:
    """A name that nothing else can have, so that one whose making was not answered is found."""
    return f"portal:{base_id.hex}" if generation == 1 else f"p{generation}:{base_id.hex}"[:40]


def _credentials(model: str, url: str, key: str, context_length: int) -> dict[str, str]:
    return {
        "display_name": model,
        "api_key": key,
        "endpoint_url": f"{url}/v1",
        "endpoint_model_name": model,
        "mode": "chat",
        "context_size": str(context_length),
        "max_tokens_to_sample": str(context_length),
        "stream_mode_delimiter": "\\n\\n",
        "agent_thought_support": "not_supported",
        "function_calling_type": "no_call",
        "stream_function_calling": "not_supported",
        "vision_support": "no_support",
        "structured_output_support": "supported",
    }


def _context_length(model: str) -> int:
    """In tokens; of several deployments the shortest, for any of them may answer."""
    named = named_models([model]).get(model)
    if isinstance(named, Served):
        return named.context_length
    if isinstance(named, Routed):
        return min(served.context_length for served in named.served.values())
    raise Conflict(f"The model '{model}' is not served here.", code="model_not_served")
