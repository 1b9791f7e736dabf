"""A tenant's knowledge on a double of Dify, kept in step by hand: no clock, no worker."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from knowledge.connections.services import create_connection, edit_connection
from knowledge.dify.channel import Endpoint
from knowledge.models import (
    Connection,
    DeletionReceipt,
    Document,
    KnowledgeBase,
    RemoteObject,
    Sync,
    SyncState,
)
from knowledge.services import add_text, create_knowledge_base
from knowledge.sync.lease import Lease
from knowledge.sync.running import claim, run
from knowledge.sync.selectors import steps_of
from portal.core.actors import Context
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, unique
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.double.state import Dataset
from tests.knowledge.support import index

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
MOST_RUNS = 60


@dataclass
class Bench:
    """What a test of keeping in step needs."""

    tenant: Organisation
    double: DifyDouble
    gateway_url: str
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        endpoint = Endpoint(
            self.double.url, self.double.own.id, self.double.console_key, self.double.dataset_key
        )
        self.connection = connect(self.context, endpoint)

    @property
    def context(self) -> Context:
        return self.tenant.owner.context

    def policy(self, policy: str) -> None:
        self.connection = edit_connection(
            context=self.context, connection_id=self.connection.pk, drift_policy=policy
        )

    def base(self, name: str = "Handbook", **settings: Any) -> KnowledgeBase:
        settings = {"embedding_model": "", **settings}
        return create_knowledge_base(
            context=self.context, name=name, connection_id=self.connection.pk, **settings
        )

    def text(
        self, base: KnowledgeBase, name: str, text: str = "Twenty days.", **more: Any
    ) -> Document:
        """A document that has been read."""
        made = add_text(
            context=self.context, knowledge_base_id=base.pk, name=name, text=text, **more
        )
        index(self.tenant)
        return made

    # -- running -----------------------------------------------------------------------------

    def hurry(self, *, look: bool = False) -> None:
        """Makes everything due that waits for nothing but time."""
        with tenant_scope(self.context):
            sync = Sync.objects.filter(connection=self.connection)
            sync.update(due_at=LONG_AGO, lease_until=None)
            if look:
                sync.update(observe_at=LONG_AGO)
            RemoteObject.objects.exclude(next_at=None).update(next_at=LONG_AGO)

    def lease(self) -> Lease | None:
        """Claims this connection, as an io worker does."""
        with psycopg.connect(self.gateway_url, autocommit=True) as claims:
            while (lease := claim(claims)) is not None:
                if lease.connection_id == self.connection.pk:
                    return lease
        return None

    def run(self, *, look: bool = False) -> None:
        """One run, with everything due."""
        self.hurry(look=look)
        lease = self.lease()
        assert lease is not None, "the connection is due"
        run(lease)

    def settle(self, *, look: bool = False) -> None:
        """Runs until nothing is left to be done, but for what is to be decided."""
        for number in range(MOST_RUNS):
            self.run(look=look and number == 0)
            with tenant_scope(self.context):
                left = [step for step in steps_of(self.connection) if step.verb != "conflict"]
            if not left:
                return
        raise AssertionError(f"not settled: {left}")

    # -- what stands where -------------------------------------------------------------------

    def links(self, **which: Any) -> list[RemoteObject]:
        with tenant_scope(self.context):
            found = RemoteObject.objects.filter(connection=self.connection, **which)
            return list(found.order_by("id"))

    def link(self, local_id: UUID) -> RemoteObject:
        (found,) = self.links(local_id=local_id)
        return found

    def sync(self) -> Sync:
        with tenant_scope(self.context):
            return Sync.objects.get(connection=self.connection)

    def receipts(self) -> list[DeletionReceipt]:
        with tenant_scope(self.context):
            return list(DeletionReceipt.objects.order_by("id"))

    def in_dify(self) -> dict[str, dict[str, str]]:
        """Name of each knowledge base there -> name -> text of its documents; twins show."""
        return {dataset.name: texts_of(dataset) for dataset in self.double.own.datasets.values()}

    def requests(self, method: str = "", path: str = "") -> list[tuple[str, str]]:
        found = [(seen.request.method, seen.request.path) for seen in self.double.seen]
        return [(m, p) for m, p in found if method in ("", m) and path in p]

    def in_step(self) -> bool:
        return all(link.state == SyncState.IN_STEP for link in self.links())


def texts_of(dataset: Dataset) -> dict[str, str]:
    found: dict[str, str] = {}
    for document in dataset.documents.values():
        name = document.name
        while name in found:
            name += " (twin)"
        found[name] = document.text
    return found


def connect(context: Context, endpoint: Endpoint, **changed: Any) -> Connection:
    given: dict[str, Any] = {
        "name": unique("dify"),
        "base_url": endpoint.base_url,
        "workspace_id": UUID(endpoint.workspace_id),
        "console_key": endpoint.console_key,
        "dataset_key": endpoint.dataset_key,
        "drift_policy": "ours",
    }
    return create_connection(context=context, **{**given, **changed})
