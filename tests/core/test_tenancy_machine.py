"""However scopes are nested and left, the database is in the state that the innermost one says."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import DataError, connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from portal.core.database_roles import database_roles
from portal.core.tenancy import (
    CrossTenantScope,
    bare_scope,
    platform_scope,
    role_scope,
    tenant_scope,
    user_scope,
)
from portal.core.tenancy.scopes import active_scope
from tests.factories import Organisation

APP = "portal_app"


class Boom(Exception):
    """What ends a scope that fails."""


@dataclass(frozen=True)
class Frame:
    """What must be in force inside one open block; ``keeps`` is the tenant it is bound to."""

    block: AbstractContextManager[Any]
    tenant: str
    role: str
    keeps: str
    scoped: bool


def _in_force() -> tuple[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(current_setting('portal.tenant_id', true), ''), current_user"
        )
        tenant, role = cursor.fetchone()
    return tenant, role


class ScopeMachine(RuleBasedStateMachine):
    """Opens and closes scopes in any order and compares with a stack."""

    organisations: tuple[Organisation, Organisation]

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[Frame] = []

    @property
    def top(self) -> Frame | None:
        return self.stack[-1] if self.stack else None

    @property
    def keeps(self) -> str:
        return self.top.keeps if self.top else ""

    def _enter(
        self, block: AbstractContextManager[Any], tenant: str, role: str, keeps: str, scoped: bool
    ) -> None:
        block.__enter__()
        self.stack.append(Frame(block, tenant, role, keeps, scoped))

    @rule(which=st.integers(0, 1))
    def enter_tenant(self, which: int) -> None:
        organisation = self.organisations[which]
        name = str(organisation.id)
        block = tenant_scope(organisation.context)
        if self.keeps not in ("", name):
            with pytest.raises(CrossTenantScope):
                block.__enter__()
            return
        self._enter(block, name, APP, name, True)

    @rule(which=st.integers(0, 1))
    def enter_user(self, which: int) -> None:
        self._enter(user_scope(self.organisations[which].context), "", APP, self.keeps, True)

    @rule()
    def enter_bare(self) -> None:
        self._enter(bare_scope(self.organisations[0].context), "", APP, self.keeps, True)

    @rule()
    def enter_platform(self) -> None:
        context = self.organisations[0].context
        block = platform_scope(context, reason="state machine")
        self._enter(block, str(context.tenant_id), database_roles().platform, "", True)

    @rule(which=st.integers(0, 1))
    def enter_audit_reader(self, which: int) -> None:
        organisation = self.organisations[which]
        name = str(organisation.id)
        block = role_scope(organisation.context, database_roles().audit_reader)
        if self.keeps not in ("", name):
            with pytest.raises(CrossTenantScope):
                block.__enter__()
            return
        self._enter(block, name, database_roles().audit_reader, name, True)

    @rule()
    def enter_savepoint(self) -> None:
        top = self.top
        tenant, role = (top.tenant, top.role) if top else ("", APP)
        scoped = top.scoped if top else False
        self._enter(transaction.atomic(), tenant, role, self.keeps, scoped)

    @precondition(lambda self: self.stack)
    @rule()
    def leave(self) -> None:
        self.stack.pop().block.__exit__(None, None, None)

    @precondition(lambda self: self.stack)
    @rule()
    def leave_by_exception(self) -> None:
        boom = Boom()
        assert not self.stack.pop().block.__exit__(Boom, boom, None)

    @precondition(lambda self: self.stack)
    @rule()
    def leave_by_failed_statement(self) -> None:
        with connection.cursor() as cursor, pytest.raises(DataError) as failed:
            cursor.execute("SELECT 1 / 0")
        error = failed.value
        assert not self.stack.pop().block.__exit__(type(error), error, None)

    @invariant()
    def database_agrees(self) -> None:
        top = self.top
        assert _in_force() == ((top.tenant, top.role) if top else ("", APP))
        assert (active_scope() is not None) is bool(top and top.scoped)

    def teardown(self) -> None:
        while self.stack:
            self.stack.pop().block.__exit__(None, None, None)
        assert _in_force() == ("", APP)


def test_nest_scopes_in_any_order_keeps_database_and_stack_alike(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    class Machine(ScopeMachine):
        organisations = (tenant_a, tenant_b)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
