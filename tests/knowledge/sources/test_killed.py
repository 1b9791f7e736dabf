"""Io workers that are killed while they read a source, on the whole running portal."""

from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from knowledge.models import DocumentSource, KnowledgeBase, RunState, SourceRun
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, unique
from tests.knowledge.sources.support import documents, watch, write
from tests.live import IDLE_SLOTS, LivePortal, Programs
from tests.waiting import eventually

FILES = 150


def test_killed_io_worker_is_followed_without_a_twin_or_a_gap(
    live_portal: LivePortal,
    programs: Programs,
    tenant_a: Organisation,
    base: KnowledgeBase,
    root: Path,
) -> None:
    for number in range(FILES):
        write(root / f"{number}.txt", f"Rule number {number}.")
    source = watch(tenant_a, base)
    slots = {**IDLE_SLOTS, "SOURCE_SLOTS": "1", "SOURCE_FOLDERS": f"{tenant_a.tenant.slug}={root}"}
    first = programs.io(name=unique("io-sources"), **slots)

    def taken() -> int:
        return len(documents(tenant_a, base))

    eventually(lambda: taken() > 3, within=60, every=0.005, what=lambda: str(taken()))
    first.kill()
    left = taken()
    assert left < FILES
    with tenant_scope(tenant_a.context):
        # Its claim lapses; nobody waits for that here.
        lapsed = timezone.now() - timedelta(seconds=1)
        DocumentSource.objects.filter(pk=source.pk).update(wake_at=lapsed)
    programs.io(name=unique("io-sources"), **slots)
    eventually(lambda: run_of(tenant_a).state == RunState.DONE, within=60, every=0.1)
    assert sorted(documents(tenant_a, base)) == sorted(f"{n}.txt" for n in range(FILES))
    run = run_of(tenant_a)
    assert (run.added, run.changed, run.refused) == (FILES, 0, 0)


def run_of(tenant: Organisation) -> SourceRun:
    """The one run of the tenant's one source."""
    with tenant_scope(tenant.context):
        return SourceRun.objects.get()
