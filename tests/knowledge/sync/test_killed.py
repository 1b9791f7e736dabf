"""Io workers are killed while they keep Dify in step: the next goes on where each one was."""

from functools import partial
from typing import Final

from knowledge.models import Sync
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, unique
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.sync.bench import LONG_AGO, Bench
from tests.live import LivePortal, Programs
from tests.waiting import eventually

DOCUMENTS: Final = 14
KILLED_AT: Final = (1, 6)
"""So many documents were asked for when a worker is killed; the first one stands alone."""


def test_killed_io_workers_are_followed_without_a_twin_or_a_gap(
    live_portal: LivePortal, programs: Programs, tenant_a: Organisation, dify: DifyDouble
) -> None:
    bench = Bench(tenant_a, dify, live_portal.servers.url("gateway"))
    base = bench.base()
    texts = {f"{n}.txt": f"Rule number {n}." for n in range(DOCUMENTS)}
    for name, text in texts.items():
        bench.text(base, name, text)

    def asked(least: int) -> bool:
        return len(bench.requests("POST", "create-by-text")) >= least

    for killed_at in KILLED_AT:
        worker = programs.io(name=unique("io-sync"), WEBHOOK_SLOTS="0", DOCUMENT_SLOTS="0")
        eventually(partial(asked, killed_at), within=60, every=0.001)
        worker.kill()
        assert not bench.in_step()
        # Its lease runs out; nobody waits for that here.
        with tenant_scope(tenant_a.context):
            Sync.objects.filter(connection=bench.connection).update(
                lease_until=None, due_at=LONG_AGO
            )
    programs.io(name=unique("io-sync"), WEBHOOK_SLOTS="0", DOCUMENT_SLOTS="0")
    eventually(
        lambda: bench.in_step() and len(bench.links()) > DOCUMENTS,
        within=90,
        every=0.2,
        what=lambda: str([(link.label, link.state, link.error) for link in bench.links()]),
    )
    assert list(bench.in_dify().values()) == [texts]
    assert not asked(DOCUMENTS + len(KILLED_AT) + 1)
