"""API keys."""

from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models.people import User
from tenants.models.tenant import Tenant


class ApiKeyKind(models.TextChoices):
    STANDARD = "standard", _("Standard")
    PLAYGROUND = "playground", _("Playground")


class ApiKey(IdModel, TenantModel):
    """A credential of a business system, or of one browser session's playground.

    The secret itself is kept nowhere: only its HMAC under a numbered pepper. A playground key
    also carries an HMAC of the session it was made for and is refused without that session.

    A rotation gives the key a new secret, its next ``generation``; the one before it goes on
    working until ``former_until``.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="api_keys")
    user = models.ForeignKey(
        User, models.PROTECT, related_name="api_keys", verbose_name=_("made by")
    )
    name = models.CharField(_("name"), max_length=80)
    kind = models.CharField(max_length=12, choices=ApiKeyKind, default=ApiKeyKind.STANDARD)
    public_id = models.CharField(_("key"), max_length=16, unique=True)
    secret_hmac = models.BinaryField()
    pepper_version = models.PositiveSmallIntegerField()
    generation = models.PositiveIntegerField(_("generation"), db_default=1)
    former_secret_hmac = models.BinaryField(null=True)
    former_pepper_version = models.PositiveSmallIntegerField(null=True)
    former_until = models.DateTimeField(null=True)
    session_hmac = models.BinaryField(null=True)
    scopes = ArrayField(models.CharField(max_length=40), verbose_name=_("scopes"))
    allowed_models = ArrayField(
        models.CharField(max_length=80),
        null=True,
        blank=True,
        verbose_name=_("models"),
        help_text=_("Empty means every model."),
    )
    allowed_networks = ArrayField(
        models.CharField(max_length=43),
        null=True,
        blank=True,
        verbose_name=_("networks"),
        help_text=_("Empty means from anywhere."),
    )
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    revoked_reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="api_key_in_tenant"),
            models.CheckConstraint(
                condition=Q(kind=ApiKeyKind.STANDARD, session_hmac__isnull=True)
                | Q(
                    kind=ApiKeyKind.PLAYGROUND, session_hmac__isnull=False, expires_at__isnull=False
                ),
                name="playground_key_is_bound",
            ),
            models.CheckConstraint(
                condition=Q(
                    former_secret_hmac__isnull=True,
                    former_pepper_version__isnull=True,
                    former_until__isnull=True,
                )
                | Q(
                    former_secret_hmac__isnull=False,
                    former_pepper_version__isnull=False,
                    former_until__isnull=False,
                    generation__gt=1,
                ),
                name="former_secret_is_whole",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "-created_at"], name="api_key_list")]

    def __str__(self) -> str:
        return self.name

    @property
    def last_used_at(self) -> datetime | None:
        """The last use of any generation; lists prefetch ``uses``."""
        return max((use.last_used_at for use in self.uses.all()), default=None)


class ApiKeyUse(TenantModel):
    """When one generation of a key's secret was last used, to within seconds.

    A table of its own, because every gateway writes here and the keys are governed.
    """

    pk = models.CompositePrimaryKey("tenant_id", "api_key_id", "generation")
    tenant = models.ForeignKey(
        Tenant, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey, models.CASCADE, related_name="uses", db_constraint=False, db_index=False
    )
    generation = models.PositiveIntegerField()
    last_used_at = models.DateTimeField(_("last used"))

    class Meta:
        ordering = ["-generation"]
