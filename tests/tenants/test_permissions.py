"""Who may do what, written out a second time: a slip in the product's tables shows here."""

from dataclasses import replace

import pytest

from portal.core.actors import ANONYMOUS, Actor, ActorType, Context, PlatformRole, TenantRole
from portal.core.errors import Forbidden
from portal.core.ids import uuid7
from tenants.permissions import Action, Scope, actions_of, allowed, grantable_scopes, require

OWNER, DEVELOPER, VIEWER, AUDITOR = TenantRole
SYSTEM, SECURITY, AUDIT = PlatformRole

EXPECTED: dict[Action, set[str]] = {
    Action.TENANT_READ: {*TenantRole, *PlatformRole, Scope.TENANT_READ},
    Action.TENANT_CREATE: {SYSTEM},
    Action.TENANT_EDIT: {SYSTEM},
    Action.TENANT_SUSPEND: {SYSTEM},
    Action.TENANT_CLOSE: {SYSTEM},
    Action.TENANT_EXPORT: {OWNER, SYSTEM},
    Action.TENANT_ENTER: {SYSTEM, SECURITY},
    Action.USER_READ: {SYSTEM, SECURITY},
    Action.USER_CREATE: {SYSTEM, SECURITY},
    Action.USER_DEACTIVATE: {SECURITY},
    Action.USER_SET_ROLE: {SECURITY},
    Action.USER_RESET_PASSWORD: {SECURITY},
    Action.MEMBER_READ: {OWNER, SYSTEM, SECURITY, Scope.MEMBERS_READ, Scope.MEMBERS_WRITE},
    Action.MEMBER_MANAGE: {OWNER, SYSTEM, Scope.MEMBERS_WRITE},
    Action.SERVICE_ACCOUNT_READ: {
        OWNER,
        DEVELOPER,
        VIEWER,
        SYSTEM,
        SECURITY,
        Scope.KEYS_READ,
        Scope.KEYS_WRITE,
    },
    Action.SERVICE_ACCOUNT_MANAGE: {OWNER},
    Action.KEY_READ: {
        OWNER,
        DEVELOPER,
        VIEWER,
        SYSTEM,
        SECURITY,
        Scope.KEYS_READ,
        Scope.KEYS_WRITE,
    },
    Action.KEY_CREATE: {OWNER, DEVELOPER, Scope.KEYS_WRITE},
    Action.KEY_EDIT: {OWNER, Scope.KEYS_WRITE},
    Action.KEY_EDIT_OWN: {OWNER, DEVELOPER},
    Action.KEY_REVOKE: {OWNER, SECURITY, Scope.KEYS_WRITE},
    Action.KEY_REVOKE_OWN: {OWNER, DEVELOPER},
    Action.QUOTA_READ: {OWNER, DEVELOPER, VIEWER, SYSTEM, Scope.TENANT_READ},
    Action.QUOTA_EDIT: {OWNER},
    Action.QUOTA_EDIT_TENANT: {SYSTEM},
    Action.JOB_READ: {OWNER, DEVELOPER, VIEWER, AUDITOR, SYSTEM, Scope.JOBS_READ},
    Action.JOB_SUBMIT: {Scope.INFERENCE},
    Action.JOB_CANCEL: {OWNER},
    Action.WEBHOOK_READ: {OWNER, DEVELOPER, Scope.JOBS_READ},
    Action.WEBHOOK_SEND: {OWNER, DEVELOPER, Scope.INFERENCE},
    Action.WEBHOOK_SECRET: {OWNER},
    Action.USAGE_READ: {OWNER, DEVELOPER, VIEWER, SYSTEM, Scope.TENANT_READ},
    Action.USAGE_REPAIR: set(),
    Action.MODEL_READ: {OWNER, DEVELOPER, VIEWER, SYSTEM, Scope.INFERENCE},
    Action.MODEL_EDIT: {SYSTEM},
    Action.DEPLOYMENT_READ: {SYSTEM},
    Action.DEPLOYMENT_EDIT: {SYSTEM},
    Action.ROUTE_READ: {SYSTEM},
    Action.ROUTE_EDIT: {SYSTEM},
    Action.PLAYGROUND_USE: {OWNER, DEVELOPER},
    Action.INFERENCE_CALL: {OWNER, DEVELOPER, Scope.INFERENCE},
    Action.CONNECTION_READ: {OWNER, DEVELOPER, VIEWER, SYSTEM},
    Action.CONNECTION_EDIT: {OWNER, SYSTEM},
    Action.CONNECTION_SHARE: {SYSTEM},
    Action.KNOWLEDGE_READ: {
        OWNER,
        DEVELOPER,
        VIEWER,
        Scope.KNOWLEDGE_READ,
        Scope.KNOWLEDGE_WRITE,
    },
    Action.KNOWLEDGE_EDIT: {OWNER, DEVELOPER, Scope.KNOWLEDGE_WRITE},
    Action.KNOWLEDGE_RETRIEVE: {
        OWNER,
        DEVELOPER,
        Scope.KNOWLEDGE_READ,
        Scope.KNOWLEDGE_WRITE,
    },
    Action.APP_READ: {OWNER, DEVELOPER, VIEWER, Scope.APPS_READ, Scope.APPS_WRITE},
    Action.APP_EDIT: {OWNER, DEVELOPER, Scope.APPS_WRITE},
    Action.APP_CALL: {OWNER, DEVELOPER, Scope.APPS, Scope.APPS_WRITE},
    Action.EVENT_SEND: {OWNER, DEVELOPER, Scope.EVENTS},
    Action.AUDIT_READ: {AUDITOR, AUDIT, Scope.AUDIT_READ},
    Action.AUDIT_READ_ALL: {AUDIT},
}

TENANT_ID = uuid7()
PERSON = Context(actor=Actor(ActorType.USER, uuid7(), "person@example.test"), user_id=uuid7())


def context_of(who: str) -> Context:
    if isinstance(who, PlatformRole):
        return replace(PERSON, platform_role=who)
    if isinstance(who, TenantRole):
        return replace(PERSON, tenant_role=who, tenant_id=TENANT_ID)
    return Context(
        actor=Actor(ActorType.API_KEY, uuid7(), "key"),
        api_key_id=uuid7(),
        tenant_id=TENANT_ID,
        scopes=frozenset({str(who)}),
    )


EVERYONE = [*PlatformRole, *TenantRole, *Scope]


def test_expect_action_every_one_is_listed() -> None:
    assert set(EXPECTED) == set(Action)


@pytest.mark.parametrize("who", EVERYONE, ids=lambda who: f"{type(who).__name__}-{who}")
@pytest.mark.parametrize("action", list(Action))
def test_allow_action_by_role_or_scope_follows_the_table(who: str, action: Action) -> None:
    # Compared by identity of the member: the audit scope and the audit roles share words.
    expected = any(found is who for found in EXPECTED[action])
    assert allowed(context_of(who), action) is expected


def test_require_denied_action_names_it() -> None:
    with pytest.raises(Forbidden) as refusal:
        require(context_of(VIEWER), Action.KEY_CREATE)
    assert refusal.value.data == {"action": "key.create"}


def test_allow_stranger_nothing() -> None:
    assert actions_of(Context(actor=ANONYMOUS)) == frozenset()


def test_allow_person_without_role_nothing() -> None:
    assert actions_of(replace(PERSON, tenant_id=TENANT_ID)) == frozenset()


def test_allow_tenant_role_without_tenant_nothing() -> None:
    assert actions_of(replace(PERSON, tenant_role=OWNER)) == frozenset()


def test_allow_members_of_a_closing_tenant_to_read_and_export_alone() -> None:
    owner = replace(context_of(OWNER), tenant_read_only=True)
    assert actions_of(owner) == {
        Action.TENANT_READ, Action.TENANT_EXPORT, Action.MEMBER_READ, Action.KEY_READ,
        Action.QUOTA_READ, Action.JOB_READ, Action.USAGE_READ, Action.MODEL_READ,
        Action.SERVICE_ACCOUNT_READ, Action.WEBHOOK_READ, Action.KNOWLEDGE_READ,
        Action.CONNECTION_READ, Action.APP_READ,
    }  # fmt: skip
    auditor = replace(context_of(AUDITOR), tenant_read_only=True)
    assert actions_of(auditor) == actions_of(context_of(AUDITOR))


def test_allow_administrators_inside_a_closing_tenant_no_change_of_it() -> None:
    lost = {
        Action.MEMBER_MANAGE,
        Action.QUOTA_EDIT_TENANT,
        Action.CONNECTION_EDIT,
        Action.CONNECTION_SHARE,
    }
    system = context_of(SYSTEM)
    assert actions_of(replace(system, tenant_read_only=True)) == actions_of(system) - lost


def test_allow_key_of_an_owner_only_its_scopes() -> None:
    key = replace(context_of(Scope.KEYS_READ), tenant_role=OWNER, platform_role=SYSTEM)
    assert actions_of(key) == {Action.KEY_READ, Action.SERVICE_ACCOUNT_READ}


def test_allow_unknown_scope_nothing() -> None:
    assert actions_of(replace(context_of(Scope.INFERENCE), scopes=frozenset({"all"}))) == set()


def test_allow_system_actor_from_outside_nothing() -> None:
    inside = Context.system("task")
    assert actions_of(inside) == set(Action)
    assert actions_of(replace(inside, auth_method="session")) == frozenset()


def test_grant_scopes_key_hands_on_only_its_own() -> None:
    assert grantable_scopes(context_of(Scope.KEYS_WRITE)) == {Scope.KEYS_WRITE}


def test_grant_scopes_developer_cannot_widen_the_own_reach() -> None:
    developer = context_of(DEVELOPER)
    granted = grantable_scopes(developer)
    reach = {action for scope in granted for action in actions_of(context_of(scope))}
    # Submitting is what every caller of models may do, if by a key and never by a session.
    assert reach - {Action.JOB_SUBMIT} <= actions_of(developer)


@pytest.mark.parametrize("role", [VIEWER, AUDITOR])
def test_grant_scopes_reader_grants_none(role: TenantRole) -> None:
    assert grantable_scopes(context_of(role)) == frozenset()
