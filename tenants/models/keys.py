"""API keys."""

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
    session_hmac = models.BinaryField(null=True)
    scopes = ArrayField(models.CharField(max_length=40), verbose_name=_("scopes"))
    allowed_models = ArrayField(
        models.CharField(max_length=80),
        null=True,
        blank=True,
        verbose_name=_("models"),
        help_text=_("Empty means every model."),
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
        ]
        indexes = [models.Index(fields=["tenant", "-created_at"], name="api_key_list")]

    def __str__(self) -> str:
        return self.name
