"""Fixtures that every room shares.

The portal's settings read their environment when they are imported, so this file names the
session's own data folder before Django is set up. The servers behind it start when a test first
asks for ``database``, directly or through a fixture that needs it.

Tests commit for real, on a database that is never flushed or rolled back: each makes tenants of
its own, with fresh ids, and asserts on those.
"""

import os
from collections.abc import Iterator

import psycopg
import pytest

from tests.servers import SessionServers

SERVERS = SessionServers()
SERVERS.enter_environment()
os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402

settings.PASSWORD_HASHERS = ["tests.hashers.QuickScrypt"]
# The name by which Django's test client calls.
settings.ALLOWED_HOSTS = [*settings.ALLOWED_HOSTS, "testserver"]

import redis as redis_client  # noqa: E402
from django.db import connection  # noqa: E402
from pytest_django import DjangoDbBlocker  # noqa: E402

from portal.core.actors import Context, PlatformRole  # noqa: E402
from tests import factories, live  # noqa: E402


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Lets each process that runs tests set Django up itself, for servers of its own.

    Inherited, the name of the settings would have them read before this file is.
    """
    del os.environ["DJANGO_SETTINGS_MODULE"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses the mark that would wrap a test in a transaction, or flush the database after it."""
    for item in items:
        if item.get_closest_marker("django_db") is not None:
            raise pytest.UsageError(
                f"{item.nodeid}: tests commit for real; use the fixture `database`, not django_db."
            )


@pytest.fixture(scope="session")
def servers() -> Iterator[SessionServers]:
    """PostgreSQL and Valkey of this session, migrated and running."""
    SERVERS.start()
    yield SERVERS
    connection.close()
    SERVERS.stop()


@pytest.fixture(scope="session")
def database(servers: SessionServers, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Lets Django reach the database, logged in as ``portal_app``."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def tenant_a(database: None) -> factories.Organisation:
    """A fresh tenant with an owner, a developer, a viewer and an auditor."""
    return factories.organisation("tenant-a")


@pytest.fixture
def tenant_b(database: None) -> factories.Organisation:
    """Another fresh tenant, which must never learn of the first."""
    return factories.organisation("tenant-b")


@pytest.fixture
def system_admin(database: None) -> Context:
    """The context of a fresh system administrator."""
    return factories.administrator(PlatformRole.SYSTEM).context


@pytest.fixture
def security_admin(database: None) -> Context:
    """The context of a fresh security administrator."""
    return factories.administrator(PlatformRole.SECURITY).context


@pytest.fixture
def audit_admin(database: None) -> Context:
    """The context of a fresh audit administrator."""
    return factories.administrator(PlatformRole.AUDIT).context


@pytest.fixture
def owner_sql(servers: SessionServers) -> Iterator[psycopg.Connection]:
    """A superuser's connection, bound by no policy: for assertions alone."""
    with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
        yield superuser


@pytest.fixture
def app_sql(servers: SessionServers) -> Iterator[psycopg.Connection]:
    """A bare connection as ``portal_app``, without Django's guard; transactions are explicit."""
    with psycopg.connect(servers.url("app"), autocommit=True) as app:
        yield app


@pytest.fixture
def gateway_sql(servers: SessionServers) -> Iterator[psycopg.Connection]:
    """A bare connection as ``portal_gateway``; transactions are explicit."""
    with psycopg.connect(servers.url("gateway"), autocommit=True) as gateway:
        yield gateway


@pytest.fixture
def redis(servers: SessionServers) -> Iterator["redis_client.Redis"]:
    """The session's Valkey."""
    client = redis_client.Redis.from_url(servers.valkey.url())
    yield client
    client.close()


@pytest.fixture
def sealer_sql(servers: SessionServers) -> Iterator[psycopg.Connection]:
    """A bare connection as ``portal_sealer``; transactions are explicit."""
    with psycopg.connect(servers.url("sealer"), autocommit=True) as sealer:
        yield sealer


@pytest.fixture(scope="session")
def live_portal(servers: SessionServers, database: None) -> Iterator[live.LivePortal]:
    """A whole portal that runs for the session, on the session's servers."""
    portal = live.start_portal(servers)
    yield portal
    portal.programs.stop()


@pytest.fixture
def programs(servers: SessionServers, database: None) -> Iterator[live.Programs]:
    """Starts further processes of the product; they end with the test."""
    started = live.Programs(servers)
    yield started
    started.stop()
