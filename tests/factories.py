"""Organisations, people and their contexts, made as the product makes them: by its services."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from portal.core.actors import Actor, ActorType, Context, PlatformRole, TenantRole
from portal.core.ids import uuid7
from tenants.models import Tenant, User
from tenants.services import CreatedKey, add_member, create_api_key, create_tenant, create_user

TESTS = Context.system("tests")


@dataclass(frozen=True, slots=True)
class Member:
    """A person of one tenant, and the context in which that person acts there."""

    user: User
    context: Context
    password: str


@dataclass(frozen=True, slots=True)
class Administrator:
    """One of the platform's three administrators."""

    user: User
    context: Context
    password: str


@dataclass(frozen=True, slots=True)
class Organisation:
    """A tenant with one member of every role."""

    tenant: Tenant
    owner: Member
    developer: Member
    viewer: Member
    auditor: Member

    @property
    def id(self) -> UUID:
        return self.tenant.id

    @property
    def context(self) -> Context:
        """The owner's context, for tests to which the role does not matter."""
        return self.owner.context

    def member(self, role: TenantRole) -> Member:
        """The member who has this role."""
        member: Member = getattr(self, role.value)
        return member


def unique(word: str) -> str:
    """A name that no other test has: ``word`` and a few random letters."""
    return f"{word}-{uuid7().hex[-8:]}"


def user_actor(user: User) -> Actor:
    """The actor that an event names when this user acts."""
    return Actor(ActorType.USER, user.id, user.email)


def tenant_context(tenant: Tenant, user: User, role: TenantRole) -> Context:
    """The context of a user who acts in a tenant by a session."""
    return Context(
        actor=user_actor(user),
        tenant_id=tenant.id,
        user_id=user.id,
        auth_method="session",
        address="192.0.2.10",
        request_id=unique("req"),
        tenant_role=role,
    )


def platform_context(user: User, role: PlatformRole) -> Context:
    """The context of an administrator of the platform."""
    return Context(
        actor=user_actor(user),
        user_id=user.id,
        auth_method="session",
        address="192.0.2.20",
        request_id=unique("req"),
        platform_role=role,
    )


def organisation(name: str = "tenant-a") -> Organisation:
    """A fresh tenant with one member of every role."""
    slug = unique(name)
    made = create_tenant(
        context=TESTS,
        name=slug.title(),
        slug=slug,
        owner_email=f"owner@{slug}.example.test",
        owner_name="Olive Owner",
    )
    owner = _member(made.tenant, made.owner, TenantRole.OWNER, made.password)
    return Organisation(
        tenant=made.tenant,
        owner=owner,
        developer=_join(made.tenant, owner.context, TenantRole.DEVELOPER),
        viewer=_join(made.tenant, owner.context, TenantRole.VIEWER),
        auditor=_join(made.tenant, owner.context, TenantRole.AUDITOR),
    )


def _join(tenant: Tenant, owner: Context, role: TenantRole) -> Member:
    email = f"{role.value}@{tenant.slug}.example.test"
    added = add_member(context=owner, email=email, role=role)
    return _member(tenant, added.membership.user, role, added.password)


def _member(tenant: Tenant, user: User, role: TenantRole, password: str | None) -> Member:
    assert password is not None
    return Member(user, tenant_context(tenant, user, role), password)


def administrator(role: PlatformRole) -> Administrator:
    """A fresh administrator of the platform."""
    made = create_user(
        context=TESTS,
        email=f"{unique(role.value)}@platform.example.test",
        full_name=f"{role.value.title()} Administrator",
        platform_role=role,
    )
    assert made.password is not None
    return Administrator(made.user, platform_context(made.user, role), made.password)


def api_key(
    organisation: Organisation, *, scopes: Iterable[str] = ("inference",), name: str = "till"
) -> CreatedKey:
    """A key that the organisation's owner made."""
    return create_api_key(context=organisation.owner.context, name=name, scopes=scopes)
