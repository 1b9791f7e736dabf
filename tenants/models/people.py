"""Users, who are global, and memberships, which place them in tenants."""

from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from portal.core.actors import PlatformRole, TenantRole
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models.tenant import Tenant


class UserManager(BaseUserManager["User"]):
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
    """A person, known by e-mail address.

    One column holds the platform role, so no account can be two of the three administrators.
    """

    email = models.EmailField(_("e-mail address"), max_length=254, unique=True)
    full_name = models.CharField(_("name"), max_length=120, blank=True)
    is_active = models.BooleanField(_("active"), default=True)
    platform_role = models.CharField(
        _("platform role"), max_length=12, choices=PLATFORM_ROLE_CHOICES, null=True, blank=True
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    objects = UserManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        ordering = ["email"]
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_any_case")]

    def __str__(self) -> str:
        return self.email

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
