"""Defaults of quotas: whoever is limited by one is counted alone, and never without a limit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inference.gateway.store import READ_WINDOWS, _window
from portal.core.actors import Context, TenantRole
from portal.core.errors import Forbidden, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.models import LIMITS, Membership, Quota, QuotaDefault
from tenants.services import (
    add_member,
    create_api_key,
    create_playground_key,
    create_service_account,
    delete_quota,
    delete_quota_default,
    remove_member,
    revoke_api_key,
    set_quota,
    set_quota_default,
)
from tenants.warner import warn
from tests.factories import Organisation, api_key, organisation, unique

Limits = dict[str, int | None]


def limits_of(org: Organisation, **whose: UUID | None) -> Limits:
    """The limits that admission would enforce for somebody; empty without a row and a window."""
    wanted = {"user": None, "api_key": None, "model_id": None, **whose}
    with tenant_scope(org.context):
        named = {n: v for n, v in wanted.items() if v is not None}
        nobody = {f"{n}__isnull": True for n, v in wanted.items() if v is None}
        quota = Quota.objects.filter(**named, **nobody, window__isnull=False).first()
    return {} if quota is None else {n: v for n in LIMITS if (v := getattr(quota, n)) is not None}


def default_of(org: Organisation, applies_to: str) -> QuotaDefault:
    with tenant_scope(org.context):
        return QuotaDefault.objects.get(applies_to=applies_to)


def test_set_default_limits_every_key_there_is_and_every_one_to_come(
    tenant_a: Organisation,
) -> None:
    before = api_key(tenant_a).api_key
    set_quota_default(context=tenant_a.context, applies_to="api_key", requests_day=1000)
    after = api_key(tenant_a).api_key
    played = create_playground_key(context=tenant_a.context, session_key="s" * 32).api_key
    for key in (before, after, played):
        assert limits_of(tenant_a, api_key=key.id) == {"requests_day": 1000}


def test_set_default_limits_every_user_and_service_account_and_those_who_join(
    tenant_a: Organisation,
) -> None:
    context = tenant_a.context
    early = create_service_account(context=context, name="early")
    set_quota_default(context=context, applies_to="user", tokens_month=7)
    late = create_service_account(context=context, name="late")
    joined = add_member(
        context=context, email=f"{unique('j')}@example.test", role=TenantRole.VIEWER
    )
    whom = [tenant_a.owner.user.id, early.pk, late.pk, joined.membership.user_id]
    for user_id in whom:
        assert limits_of(tenant_a, user=user_id) == {"tokens_month": 7}


def test_set_default_of_one_tenant_or_model_leaves_others_alone(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    ours, theirs, model = api_key(tenant_a).api_key, api_key(tenant_b).api_key, uuid7()
    set_quota_default(context=tenant_a.context, applies_to="api_key", model_id=model, tokens_day=5)
    assert limits_of(tenant_a, api_key=ours.id, model_id=model) == {"tokens_day": 5}
    assert limits_of(tenant_a, api_key=ours.id) == {}
    assert limits_of(tenant_b, api_key=theirs.id, model_id=model) == {}


def test_override_replaces_that_limit_alone_and_null_lets_the_default_hold_again(
    tenant_a: Organisation,
) -> None:
    context, key = tenant_a.context, api_key(tenant_a).api_key
    set_quota_default(context=context, applies_to="api_key", requests_day=10, tokens_day=20)
    set_quota(context=context, api_key_id=key.id, requests_day=99, concurrency=1)
    overridden = {"requests_day": 99, "tokens_day": 20, "concurrency": 1}
    assert limits_of(tenant_a, api_key=key.id) == overridden
    set_quota_default(context=context, applies_to="api_key", requests_day=11, tokens_day=21)
    assert limits_of(tenant_a, api_key=key.id) == {**overridden, "tokens_day": 21}
    set_quota(context=context, api_key_id=key.id, requests_day=None, concurrency=None)
    assert limits_of(tenant_a, api_key=key.id) == {"requests_day": 11, "tokens_day": 21}


def test_override_with_the_same_number_stays_when_the_default_moves(
    tenant_a: Organisation,
) -> None:
    context, key = tenant_a.context, api_key(tenant_a).api_key
    set_quota_default(context=context, applies_to="api_key", requests_day=10)
    set_quota(context=context, api_key_id=key.id, requests_day=10)
    set_quota_default(context=context, applies_to="api_key", requests_day=50)
    assert limits_of(tenant_a, api_key=key.id) == {"requests_day": 10}


def test_delete_quota_that_follows_a_default_takes_its_own_limits_and_keeps_its_counters(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context, key = tenant_a.context, api_key(tenant_a).api_key
    set_quota_default(context=context, applies_to="api_key", requests_day=10)
    quota = set_quota(context=context, api_key_id=key.id, requests_day=99, tokens_day=1)
    use(owner_sql, quota.id, 9)
    delete_quota(context=context, quota_id=quota.id)
    assert limits_of(tenant_a, api_key=key.id) == {"requests_day": 10}
    assert used(owner_sql, quota.id) == 9


def test_delete_default_leaves_own_limits_and_set_again_counts_on(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context, plain, own = tenant_a.context, api_key(tenant_a).api_key, api_key(tenant_a).api_key
    default = set_quota_default(context=context, applies_to="api_key", requests_day=10)
    set_quota(context=context, api_key_id=own.id, tokens_day=3)
    quota_id = quota_of(tenant_a, plain.id).id
    use(owner_sql, quota_id, 4)
    delete_quota_default(context=context, quota_default_id=default.id)
    assert limits_of(tenant_a, api_key=plain.id) == {}
    assert limits_of(tenant_a, api_key=own.id) == {"tokens_day": 3}
    set_quota_default(context=context, applies_to="api_key", requests_day=10)
    assert used(owner_sql, quota_id) == 4
    assert quota_of(tenant_a, plain.id).id == quota_id


def test_end_a_key_forgets_what_it_had_by_default_and_keeps_what_it_was_set(
    tenant_a: Organisation,
) -> None:
    context, plain, own = tenant_a.context, api_key(tenant_a).api_key, api_key(tenant_a).api_key
    set_quota_default(context=context, applies_to="api_key", requests_day=10)
    set_quota(context=context, api_key_id=own.id, tokens_day=3)
    for key in (plain, own):
        revoke_api_key(context=context, api_key_id=key.id, reason="over")
    assert limits_of(tenant_a, api_key=plain.id) == {}
    assert limits_of(tenant_a, api_key=own.id) == {"requests_day": 10, "tokens_day": 3}
    delete_quota(context=context, quota_id=quota_of(tenant_a, own.id).id)
    assert limits_of(tenant_a, api_key=own.id) == {}


def test_leave_and_join_again_counts_on_under_the_default_of_now(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context, person = tenant_a.context, tenant_a.developer.user
    set_quota_default(context=context, applies_to="user", requests_day=10)
    with tenant_scope(context):
        membership = Membership.objects.get(user=person)
        quota = Quota.objects.get(user=person)
    use(owner_sql, quota.id, 6)
    remove_member(context=context, membership_id=membership.id)
    set_quota_default(context=context, applies_to="user", requests_day=12)
    add_member(context=context, email=person.email, role=TenantRole.DEVELOPER)
    assert limits_of(tenant_a, user=person.id) == {"requests_day": 12}
    assert used(owner_sql, quota.id) == 6


def test_warn_of_an_inherited_limit_as_of_any_other(
    tenant_a: Organisation, owner_sql: psycopg.Connection, gateway_sql: psycopg.Connection
) -> None:
    set_quota_default(context=tenant_a.context, applies_to="api_key", requests_day=10)
    quota = quota_of(tenant_a, api_key(tenant_a).api_key.id)
    use(owner_sql, quota.id, 8)
    warn(gateway_sql)
    levels = owner_sql.execute(
        "SELECT level FROM tenants_quotawarning WHERE quota_id = %s ORDER BY level", [quota.id]
    ).fetchall()
    assert levels == [(50,), (80,)]


def test_admission_reads_the_inherited_limit_and_names_the_key_in_its_refusal(
    tenant_a: Organisation, gateway_sql: psycopg.Connection
) -> None:
    set_quota_default(context=tenant_a.context, applies_to="api_key", requests_day=10)
    key = api_key(tenant_a).api_key
    rows = gateway_sql.execute(READ_WINDOWS, [[key.public_id]]).fetchall()
    windows = [_window(row) for row in rows]
    assert [(w.scope, w.limits) for w in windows if w.api_key_id == key.id] == [
        ("API key", {"requests_day": 10})
    ]
    assert len(windows) == 2


@pytest.mark.parametrize("role", [TenantRole.DEVELOPER, TenantRole.VIEWER, TenantRole.AUDITOR])
def test_set_or_delete_default_by_anybody_but_an_owner_is_forbidden(
    tenant_a: Organisation, role: TenantRole
) -> None:
    context = tenant_a.member(role).context
    default = set_quota_default(context=tenant_a.context, applies_to="user", requests_day=1)
    with pytest.raises(Forbidden):
        set_quota_default(context=context, applies_to="user", requests_day=2)
    with pytest.raises(Forbidden):
        delete_quota_default(context=context, quota_default_id=default.id)


@pytest.mark.parametrize(
    "given",
    [
        {"applies_to": "tenant", "tokens_day": 1},
        {"applies_to": "user"},
        {"applies_to": "user", "tokens_week": 1},
        {"applies_to": "user", "tokens_day": -1},
    ],
)
def test_set_default_bad_input_is_refused(tenant_a: Organisation, given: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        set_quota_default(context=tenant_a.context, **given)


def test_delete_default_of_another_tenant_is_not_found(
    tenant_a: Organisation, tenant_b: Organisation
) -> None:
    default = set_quota_default(context=tenant_a.context, applies_to="user", requests_day=1)
    with pytest.raises(NotFound):
        delete_quota_default(context=tenant_b.context, quota_default_id=default.id)
    assert default_of(tenant_a, "user").requests_day == 1


def test_set_and_delete_default_leave_events(
    tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    context, key = tenant_a.context, api_key(tenant_a).api_key
    default = set_quota_default(context=context, applies_to="api_key", requests_day=1)
    delete_quota_default(context=context, quota_default_id=default.id)
    found = owner_sql.execute(
        "SELECT action, actor_label FROM audit_event WHERE object_id = %s ORDER BY id",
        [str(default.id)],
    ).fetchall()
    by = tenant_a.owner.user.email
    assert set(found) == {
        ("quota.set_default", by),
        ("tenants.quotadefault.insert", by),
        ("quota.delete_default", by),
        ("tenants.quotadefault.delete", by),
    }
    rows = owner_sql.execute(
        "SELECT action FROM audit_event WHERE object_id = %s ORDER BY id",
        [str(quota_of(tenant_a, key.id).id)],
    ).fetchall()
    assert [action for (action,) in rows] == ["tenants.quota.insert", "tenants.quota.update"]


# At the same time.


def test_make_keys_while_a_default_is_set_leaves_none_without_it(database: None) -> None:
    org = organisation("race")
    for round_ in range(4):
        keys: list[UUID] = []

        def make(context: Context = org.context, made: list[UUID] = keys) -> None:
            for _ in range(3):
                key = create_api_key(context=context, name="k", scopes=["inference"])
                made.append(key.api_key.id)

        def limit(context: Context = org.context, maximum: int = round_ + 1) -> None:
            set_quota_default(context=context, applies_to="api_key", requests_day=maximum)

        _at_once(make, limit, make)
        assert len(keys) == 6
        for key_id in keys:
            assert limits_of(org, api_key=key_id) == {"requests_day": round_ + 1}
        delete_quota_default(context=org.context, quota_default_id=default_of(org, "api_key").id)


def test_make_key_waits_for_a_default_that_is_being_set(tenant_a: Organisation) -> None:
    """Two transactions, step by step: the key is made only when the default has been."""
    began, made = threading.Event(), threading.Event()
    keys: list[UUID] = []

    def make() -> None:
        began.set()
        key = create_api_key(context=tenant_a.context, name="k", scopes=["inference"])
        keys.append(key.api_key.id)
        made.set()
        connection.close()

    thread = threading.Thread(target=make)
    with tenant_scope(tenant_a.context):
        set_quota_default(context=tenant_a.context, applies_to="api_key", requests_day=3)
        thread.start()
        assert began.wait(10)
        assert not made.wait(0.5)
    thread.join(30)
    assert limits_of(tenant_a, api_key=keys[0]) == {"requests_day": 3}


def test_set_default_waits_for_a_key_that_is_being_made(tenant_a: Organisation) -> None:
    began, done = threading.Event(), threading.Event()

    def limit() -> None:
        began.set()
        set_quota_default(context=tenant_a.context, applies_to="api_key", requests_day=3)
        done.set()
        connection.close()

    thread = threading.Thread(target=limit)
    with tenant_scope(tenant_a.context):
        key = create_api_key(context=tenant_a.context, name="k", scopes=["inference"])
        thread.start()
        assert began.wait(10)
        assert not done.wait(0.5)
    thread.join(30)
    assert limits_of(tenant_a, api_key=key.api_key.id) == {"requests_day": 3}


def _at_once(*works: Callable[[], None]) -> None:
    begin = threading.Barrier(len(works))
    faults: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        begin.wait(10)
        try:
            work()
        except BaseException as fault:  # noqa: BLE001
            faults.append(fault)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []


# Whatever the order.


def quota_of(org: Organisation, key_id: UUID) -> Quota:
    with tenant_scope(org.context):
        return Quota.objects.get(api_key_id=key_id, user=None, model_id=None)


def use(owner_sql: psycopg.Connection, quota_id: UUID, requests: int) -> None:
    owner_sql.execute(
        "UPDATE tenants_quotawindow SET requests_day_used = requests_day_used + %s "
        "WHERE quota_id = %s",
        [requests, quota_id],
    )


def used(owner_sql: psycopg.Connection, quota_id: UUID) -> int:
    row = owner_sql.execute(
        "SELECT requests_day_used FROM tenants_quotawindow WHERE quota_id = %s", [quota_id]
    ).fetchone()
    assert row is not None
    return int(row[0])


@dataclass
class Modelled:
    """A key as the simple model has it: what it sets itself, and what it has used."""

    own: Limits = field(default_factory=dict)
    used: int = 0


NAMES = st.sampled_from(["requests_day", "tokens_day", "concurrency"])
VALUES = st.none() | st.integers(0, 3)
CHANGES = st.dictionaries(NAMES, VALUES, min_size=1)


class OnOneTenant(RuleBasedStateMachine):
    """One tenant's owner does anything, in any order; the model is two dictionaries."""

    superuser: psycopg.Connection

    def __init__(self) -> None:
        super().__init__()
        self.org = organisation("inherit")
        self.default: Limits | None = None
        self.keys: dict[UUID, Modelled] = {}

    @rule(limits=CHANGES)
    def set_default(self, limits: Limits) -> None:
        set_quota_default(context=self.org.context, applies_to="api_key", **limits)  # type: ignore[arg-type]
        self.default = {**(self.default or {}), **limits}

    @precondition(lambda self: self.default is not None)
    @rule()
    def delete_default(self) -> None:
        found = default_of(self.org, "api_key")
        delete_quota_default(context=self.org.context, quota_default_id=found.id)
        self.default = None

    @rule()
    def make_key(self) -> None:
        self.keys[api_key(self.org).api_key.id] = Modelled()

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def revoke_key(self, data: st.DataObject) -> None:
        key = self._one(data)
        revoke_api_key(context=self.org.context, api_key_id=key, reason="over")
        del self.keys[key]

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), limits=CHANGES)
    def override(self, data: st.DataObject, limits: Limits) -> None:
        key = self._one(data)
        set_quota(context=self.org.context, api_key_id=key, **limits)  # type: ignore[arg-type]
        self.keys[key].own |= limits

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def delete_own(self, data: st.DataObject) -> None:
        key = self._one(data)
        if quota := self._quota(key):
            delete_quota(context=self.org.context, quota_id=quota.id)
            self.keys[key].own = {}
            if self._quota(key) is None:
                self.keys[key].used = 0

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        key = self._one(data)
        if quota := self._quota(key):
            use(self.superuser, quota.id, 1)
            self.keys[key].used += 1

    def _one(self, data: st.DataObject) -> UUID:
        return data.draw(st.sampled_from(sorted(self.keys)))

    def _quota(self, key: UUID) -> Quota | None:
        with tenant_scope(self.org.context):
            return Quota.objects.filter(api_key_id=key).first()

    def _expected(self, modelled: Modelled) -> Limits:
        own = {name: value for name, value in modelled.own.items() if value is not None}
        by_default = {n: v for n, v in (self.default or {}).items() if v is not None}
        return {**by_default, **own}

    @invariant()
    def every_key_has_what_the_model_says(self) -> None:
        for key, modelled in self.keys.items():
            assert limits_of(self.org, api_key=key) == self._expected(modelled)
            if quota := self._quota(key):
                assert used(self.superuser, quota.id) == modelled.used


def test_any_order_of_changes_leaves_each_key_with_its_own_limits_before_the_defaults(
    database: None, owner_sql: psycopg.Connection
) -> None:
    class OnThisDatabase(OnOneTenant):
        superuser = owner_sql

    run_state_machine_as_test(
        OnThisDatabase, settings=settings(max_examples=15, stateful_step_count=20, deadline=None)
    )
