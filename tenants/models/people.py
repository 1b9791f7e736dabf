"""Users, who are global, and memberships, which place them in tenants."""

from typing import Any, ClassVar, Final
from uuid import UUID

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from portal.core.actors import PlatformRole, TenantRole
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models.tenant import Tenant

SERVICE_DOMAIN: Final = "@service.invalid"
"""Ends the address of every service account and of no person; no mail can be sent there."""


class UserKind(models.TextChoices):
    PERSON = "person", _("Person")
    SERVICE = "service", _("Service account")


class UserManager(BaseUserManager["User"]):
    """People alone: whatever looks up who logs in, joins or is listed sees no service account."""

    def get_queryset(self) -> models.QuerySet["User"]:
        return super().get_queryset().filter(kind=UserKind.PERSON)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email__iexact=username)


PLATFORM_ROLE_CHOICES = [
    (PlatformRole.SYSTEM.value, _("System administrator")),
    (PlatformRole.SECURITY.value, _("Security administrator")),
    (PlatformRole.AUDIT.value, _("Audit administrator")),
]
TENANT_ROLE_CHOICES = [
    (TenantRole.OWNER.value, _("Owner")),
    (TenantRole.DEVELOPER.value, _("Developer")),
    (TenantRole.VIEWER.value, _("Viewer")),
    (TenantRole.AUDITOR.value, _("Auditor")),
]


class User(AbstractBaseUser, IdModel):
    """A person, known by e-mail address, or what stands in a service account's keys for one.

    One column holds the platform role, so no account can be two of the three administrators.
    A service account's row has no usable password, no role and an address that says nothing; its
    tenant and what people call it stand in ``ServiceAccount``, and ``full_name`` repeats its name.
    """

    kind = models.CharField(
        _("kind"), max_length=8, choices=UserKind, default=UserKind.PERSON, db_default="person"
    )
    email = models.EmailField(_("e-mail address"), max_length=254, unique=True)
    full_name = models.CharField(_("name"), max_length=120, blank=True)
    is_active = models.BooleanField(_("active"), default=True)
    platform_role = models.CharField(
        _("platform role"), max_length=12, choices=PLATFORM_ROLE_CHOICES, null=True, blank=True
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = UserManager()
    everyone = models.Manager["User"]()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        ordering = ["email"]
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_any_case"),
            models.CheckConstraint(
                condition=Q(kind=UserKind.PERSON) & ~Q(email__endswith=SERVICE_DOMAIN)
                | Q(
                    kind=UserKind.SERVICE,
                    email__endswith=SERVICE_DOMAIN,
                    # What Django puts before a password that nothing matches.
                    password__startswith="!",  # noqa: S106
                    platform_role__isnull=True,
                ),
                name="service_account_cannot_log_in",
            ),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """What people call it: a person's e-mail address, a service account's name."""
        return self.full_name if self.kind == UserKind.SERVICE else self.email

    @property
    def service_id(self) -> UUID | None:
        """The id of the service account that it is; None for a person."""
        return self.id if self.kind == UserKind.SERVICE else None

    @property
    def is_staff(self) -> bool:
        """Django's admin asks this; who may see what is decided by the permission table."""
        return self.is_active

    @property
    def is_superuser(self) -> bool:
        """Nobody is above the permission table."""
        return False

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        """Denied: pages ask the permission table of the session's role, never Django's."""
        return False

    def has_module_perms(self, app_label: str) -> bool:
        return False


class Membership(IdModel, TenantModel):
    """A user's role in one tenant."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="memberships")
    user = models.ForeignKey(User, models.PROTECT, related_name="memberships")
    role = models.CharField(_("role"), max_length=12, choices=TENANT_ROLE_CHOICES)
    created_at = models.DateTimeField(_("since"), auto_now_add=True)

    class Meta:
        verbose_name = _("member")
        verbose_name_plural = _("members")
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="one_membership_a_tenant")
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.get_role_display()}"
