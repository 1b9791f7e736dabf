"""Two tenants that have something in every table."""

import psycopg
import pytest

from tests.factories import Organisation
from tests.isolation.rows import Populated, populate


@pytest.fixture
def full_a(tenant_a: Organisation, owner_sql: psycopg.Connection) -> Populated:
    return populate(owner_sql, tenant_a)


@pytest.fixture
def full_b(tenant_b: Organisation, owner_sql: psycopg.Connection) -> Populated:
    return populate(owner_sql, tenant_b)
