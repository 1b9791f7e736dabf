"""What the portal knows of a Dify's side: which object is which, and what was last seen there."""

from typing import Final

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from knowledge.models.connections import Connection
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant

MOST_ERROR_CHARS: Final = 500


class SyncState(models.TextChoices):
    """How one object does."""

    WAITING = "waiting", _("Waits to be sent")
    INDEXING = "indexing", _("Being indexed in Dify")
    IN_STEP = "in_step", _("In step with Dify")
    CONFLICT = "conflict", _("Changed in Dify: decide which version holds")
    FAILED = "failed", _("Can't be sent")


class Decision(models.TextChoices):
    """What somebody decided about a change that was made in Dify."""

    OURS = "ours", _("Keep the portal's version")
    THEIRS = "theirs", _("Take Dify's version")


class Sync(IdModel, TenantModel):
    """The work of keeping one connection in step: when it is due, and who does it.

    ``fence`` is the number of the runner that holds it until ``lease_until``; whoever writes with
    an older one is refused. A wake-up brings ``due_at`` forward. ``error`` says why nothing goes
    on at all, since ``failing_since``.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    connection = models.ForeignKey(
        Connection, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    paused = models.BooleanField(_("paused"), default=False)
    due_at = models.DateTimeField()
    fence = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    observe_at = models.DateTimeField()
    observed_at = models.DateTimeField(_("Dify looked at"), null=True)
    failures = models.PositiveSmallIntegerField(default=0)
    failing_since = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    error = models.CharField(max_length=MOST_ERROR_CHARS, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "connection"], name="one_sync_a_connection"),
        ]
        indexes = [models.Index(fields=["due_at"], name="sync_due")]


class RemoteObject(IdModel, TenantModel):
    """One object of ours in Dify, or one that somebody made there among ours (``local_id`` null).

    Its values are kept by aspect, such as ``name`` or ``content``: as they were last ``sent``, as
    Dify ``shown`` them after that, and as they were last ``seen``. What differs between the last
    two was changed in Dify; what differs between the portal and ``sent`` was changed here.

    Attributes:
        remote_id: empty before Dify has named it.
        batch: under which its indexing is followed.
        asking: aspects that were sent and not answered yet; ``create`` for the object itself.
        gone: it is not in Dify any more, and we did not delete it.
        waiting_since: since when something is to be sent that has not been.
        next_at: not before; null if there is nothing to do.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    connection = models.ForeignKey(
        Connection, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    kind = models.CharField(_("kind"), max_length=20)
    local_id = models.UUIDField(null=True)
    parent_id = models.UUIDField(null=True)
    label = models.CharField(_("name"), max_length=255)
    remote_id = models.CharField(_("id in Dify"), max_length=64, blank=True)
    batch = models.CharField(max_length=64, blank=True)
    sent = models.JSONField(default=dict)
    shown = models.JSONField(default=dict)
    seen = models.JSONField(default=dict)
    asking = models.JSONField(default=list)
    gone = models.BooleanField(default=False)
    state = models.CharField(_("state"), max_length=8, choices=SyncState, default=SyncState.WAITING)
    decision = models.CharField(max_length=6, choices=Decision, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True)
    waiting_since = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    error = models.CharField(max_length=MOST_ERROR_CHARS, blank=True)
    synced_at = models.DateTimeField(_("in step since"), null=True)

    class Meta:
        verbose_name = _("object in Dify")
        verbose_name_plural = _("objects in Dify")
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "connection", "kind", "local_id"],
                name="one_remote_object_a_local_one",
            ),
            models.UniqueConstraint(
                fields=["tenant", "connection", "kind", "remote_id"],
                condition=~Q(remote_id=""),
                name="one_row_a_remote_object",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "kind", "local_id"], name="remote_object_of_local")
        ]

    def __str__(self) -> str:
        return self.label


class DeletionReceipt(IdModel, TenantModel):
    """That something was deleted in Dify; ``verified_at`` is when Dify said that it is gone.

    Attributes:
        contained: ids in Dify of what was deleted with it.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    connection_id = models.UUIDField()
    connection_name = models.CharField(_("connection"), max_length=80)
    kind = models.CharField(_("kind"), max_length=20)
    local_id = models.UUIDField(null=True)
    label = models.CharField(_("name"), max_length=255)
    remote_id = models.CharField(_("id in Dify"), max_length=64)
    contained = models.JSONField(default=list)
    deleted_at = models.DateTimeField(_("deleted"))
    verified_at = models.DateTimeField(_("verified"), null=True)

    class Meta:
        verbose_name = _("deletion receipt")
        verbose_name_plural = _("deletion receipts")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.label
