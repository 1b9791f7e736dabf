"""A tenant's setting never travels with a pooled connection to the next borrower."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from uuid import UUID

import pytest
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.utils import OperationalError

from portal.core.tenancy import tenant_scope
from tenants.models import Membership
from tests.factories import Organisation

ALTERNATIONS = 10_000
THREADS = 4


class Abandoned(Exception):
    """What a borrower raises half-way."""


def _close_pool() -> None:
    # Looked up where it runs: each thread has a connection wrapper of its own.
    connection.close_pool()  # type: ignore[attr-defined]


@pytest.fixture
def pooled(database: None) -> Iterator[None]:
    """Connections of new threads come from a pool of two."""
    settings = connections.settings[DEFAULT_DB_ALIAS]
    options = {**settings["OPTIONS"], "pool": {"min_size": 2, "max_size": 2}}
    pooled = {"OPTIONS": options, "CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in pooled.items():
            patch.setitem(settings, name, value)
        yield
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_close_pool).result()


def _setting_at_borrowing() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting('portal.tenant_id', true), '')")
        return str(cursor.fetchone()[0])


def _end_badly(chance: float) -> None:
    """Now and then: a statement that runs out of time, is cancelled, or an exception."""
    with connection.cursor() as cursor:
        if chance < 0.02:
            cursor.execute("SET LOCAL statement_timeout = '1ms'")
            cursor.execute("SELECT pg_sleep(5)")
        elif chance < 0.03:
            cursor.execute("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)")
        elif chance < 0.10:
            raise Abandoned


def _borrow(organisation: Organisation, chance: float) -> tuple[str, set[UUID]]:
    seen: set[UUID] = set()
    try:
        before = _setting_at_borrowing()
        try:
            with tenant_scope(organisation.context):
                seen = set(Membership.objects.values_list("tenant_id", flat=True))
                _end_badly(chance)
        except (OperationalError, Abandoned):
            pass
        return before, seen
    finally:
        connection.close()


@pytest.mark.usefixtures("pooled")
def test_alternate_tenants_on_a_pool_with_cancels_and_timeouts_never_leaks(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    def work(number: int) -> int:
        chance = Random(number)
        leaks = 0
        for turn in range(ALTERNATIONS // THREADS):
            organisation = (tenant_a, tenant_b)[(turn + number) % 2]
            before, seen = _borrow(organisation, chance.random())
            leaks += before != "" or seen != {organisation.id}
        return leaks

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == 0
