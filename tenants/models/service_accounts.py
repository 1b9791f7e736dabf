"""Service accounts: who a business system is, when no person should be behind its keys."""

from typing import TYPE_CHECKING
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import TenantModel
from tenants.models.people import User
from tenants.models.tenant import Tenant


class ServiceAccount(TenantModel):
    """A business system of one tenant. It has keys and never logs in.

    Its id is that of a row of users, so that keys, jobs, the ledger and quotas name it where they
    name a person; ``user.is_active`` is whether it is enabled. Retired ones stay, because what
    they did goes on naming them; their names are free again.
    """

    user = models.OneToOneField(
        User, models.PROTECT, primary_key=True, db_column="id", related_name="service_account"
    )
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="service_accounts")
    name = models.CharField(_("name"), max_length=80)
    description = models.CharField(_("description"), max_length=400, blank=True)
    responsible = models.ForeignKey(
        User, models.PROTECT, related_name="+", verbose_name=_("responsible")
    )
    retired_at = models.DateTimeField(_("retired"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    if TYPE_CHECKING:
        user_id: UUID

    class Meta:
        verbose_name = _("service account")
        verbose_name_plural = _("service accounts")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                "tenant",
                Lower("name"),
                condition=Q(retired_at=None),
                name="one_service_account_a_name",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """``active``, ``disabled`` or ``retired``."""
        if self.retired_at is not None:
            return "retired"
        return "active" if self.user.is_active else "disabled"
